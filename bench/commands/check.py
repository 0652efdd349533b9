"""`bench check`: does a router keep the rules? The same named checks that the tests run."""

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from bench.commands.options import Subparsers
from bench.commands.places import place
from bench.config.read_yaml import read_value
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.conformance import CheckResult
    from bench.routing.registry import Entry

LARGEST_SEED = 2**32
"""What every generator in use takes."""
MARKS = {
    "passed": "ok",
    "failed": "FAILED",
    "exempt": "exempt",
    "expected_failure": "expected failure",
    "not_run": "not run",
}


def add_parser(subparsers: Subparsers) -> None:
    """Declare the arguments."""
    parser = subparsers.add_parser(
        "check", help="check that a router keeps the rules", description=__doc__
    )
    parser.add_argument(
        "router", type=_name_or_file, help="name of a registered router, or a plugin FILE.py"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="OPTION=VALUE",
        help="set an option of the router",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of weights, text and noise (default: 0)"
    )
    parser.add_argument(
        "--expect-failure",
        action="append",
        default=[],
        metavar="CHECK=REASON",
        help="a check that is known to fail; strict: it must",
    )
    parser.add_argument("--json", action="store_true", help="print plain data instead of lines")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check every router that the name or file stands for; 1 if a check fails."""
    import torch

    from bench.conformance import resolve, run_checks

    if not 0 <= arguments.seed < LARGEST_SEED:
        raise UserError(
            f"--seed is {arguments.seed}: give a whole number from 0 and below {LARGEST_SEED}."
        )
    torch.set_num_threads(1)
    options = {
        name: read_value(f"{name}={text}") for name, text in _pairs("--set", arguments.set).items()
    }
    reasons = _pairs("--expect-failure", arguments.expect_failure)
    reports: list[tuple[Entry, list[CheckResult]]] = []
    for entry in resolve(arguments.router):
        # what is wrong with them is bad input; what is wrong with the router is for the checks to
        # say
        if options:
            entry.make(options)
        reports.append(
            (
                entry,
                run_checks(entry, options=options, seed=arguments.seed, expected_failures=reasons),
            )
        )
        if not arguments.json:
            _print(*reports[-1])
    if arguments.json:
        json.dump([_plain(entry, results) for entry, results in reports], sys.stdout, indent=2)
        print()
    return 0 if all(result.ok for _, results in reports for result in results) else 1


def _name_or_file(text: str) -> str:
    return str(place(text)) if text.endswith(".py") else text


def _pairs(flag: str, given: list[str]) -> dict[str, str]:
    for text in given:
        if not all(text.partition("=")):
            raise UserError(f"{flag} is {text!r}: give a name, an equals sign and a value.")
    return {name: value for name, _, value in (text.partition("=") for text in given)}


def _print(entry: "Entry", results: "list[CheckResult]") -> None:
    print(f"{entry.name} ({entry.family})")
    for result in results:
        print(
            f"  {MARKS[result.status]:10} {result.check}"
            + (f" ({result.reason})" if result.reason else "")
        )
        if result.status == "failed":
            print(
                f"      expected: {result.expected}\n      seen:     {result.seen}\n      hint:     {result.hint}"
            )
    failed, not_run = (
        sum(result.status == status for result in results) for status in ("failed", "not_run")
    )
    print(f"{len(results)} checks, {failed} failed{f', {not_run} not run' if not_run else ''}")


def _plain(entry: "Entry", results: "list[CheckResult]") -> dict[str, Any]:
    checks = [result.as_dict() for result in results]
    return {
        "router": entry.name,
        "family": entry.family,
        "passed": all(result.ok for result in results),
        "checks": checks,
    }
