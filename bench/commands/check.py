"""`bench check`: check that a router keeps the rules, with the named checks of the tests."""

import argparse
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.commands.options import Subparsers
from bench.commands.places import place
from bench.config.read_yaml import read_value
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.conformance import CheckResult

LARGEST_SEED = 2**32
"""First seed that some generator in use would refuse."""
STATUS_WORDS = {
    "passed": "ok",
    "failed": "FAILED",
    "exempt": "exempt",
    "expected_failure": "expected failure",
    "not_run": "not run",
}


@dataclass(frozen=True)
class RouterReport:
    """The results of one router's checks."""

    router: str
    family: str
    results: "list[CheckResult]"


def add_parser(subparsers: Subparsers) -> None:
    """Declare the arguments."""
    parser = subparsers.add_parser("check", description=__doc__)
    parser.add_argument(
        "router",
        type=_name_or_file,
        help="name of a registered router, a plugin FILE.py, or a folder of them",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="OPTION=VALUE",
        help="set an option of the router",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of weights, text and noise (default: 0)"
    )
    parser.add_argument(
        "--expect-failure",
        action="append",
        default=[],
        metavar="CHECK=REASON",
        help="a check that is known to fail; it is an error if it passes",
    )
    parser.add_argument("--json", action="store_true", help="print plain data instead of lines")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check every router of the name or file. Return 1 if a check fails."""
    from bench.executors.isolation import in_fresh_process
    from bench.routing.load_routers import load_shipped

    if not 0 <= arguments.seed < LARGEST_SEED:
        raise UserError(
            f"--seed is {arguments.seed}: give a whole number from 0 and below {LARGEST_SEED}."
        )
    options = {
        name: read_value(f"{name}={text}") for name, text in _pairs("--set", arguments.set).items()
    }
    reasons = _pairs("--expect-failure", arguments.expect_failure)
    asked = (arguments.router, options, arguments.seed, reasons)
    # A plugin runs in another process, because in this one it could print between our lines.
    shipped = arguments.router in load_shipped()
    reports = _examine(*asked) if shipped else in_fresh_process(_examine, *asked)
    if arguments.json:
        print(json.dumps([_plain(report) for report in reports], indent=2))
    else:
        for report in reports:
            _print(report)
    return 0 if all(result.ok for report in reports for result in report.results) else 1


def _examine(
    router: str, options: dict[str, Any], seed: int, reasons: dict[str, str]
) -> list[RouterReport]:
    """Check the routers of a name or a file, in this process."""
    import torch

    from bench.conformance import find_routers, run_checks
    from bench.runner.provenance import THREADS

    # One thread, as in a run: sums in another order would differ in the last bit.
    torch.set_num_threads(THREADS)
    reports: list[RouterReport] = []
    for entry in find_routers(router):
        if options:
            # Wrong options are bad input, and no fault of the router.
            entry.make(options)
        found = run_checks(entry, options=options, seed=seed, expected_failures=reasons)
        reports.append(RouterReport(entry.name, entry.family, found))
    return reports


def _name_or_file(text: str) -> str:
    return str(place(text)) if text.endswith(".py") else text


def _pairs(flag: str, given: list[str]) -> dict[str, str]:
    for text in given:
        # A name, a sign and a value: all three parts must be there.
        if not all(text.partition("=")):
            raise UserError(f"{flag} is {text!r}: give a name, an equals sign and a value.")
    return {name: value for name, _, value in (text.partition("=") for text in given)}


def _print(report: RouterReport) -> None:
    print(f"{report.router} ({report.family})")
    for result in report.results:
        reason = f" ({result.reason})" if result.reason else ""
        print(f"  {STATUS_WORDS[result.status]:10} {result.check}{reason}")
        if result.status == "failed":
            print(f"      expected: {result.expected}")
            print(f"      seen:     {result.seen}")
            print(f"      hint:     {result.hint}")
    failed, not_run = (
        sum(result.status == status for result in report.results)
        for status in ("failed", "not_run")
    )
    said = f", {not_run} not run" if not_run else ""
    print(f"{len(report.results)} checks, {failed} failed{said}")


def _plain(report: RouterReport) -> dict[str, Any]:
    return {
        "router": report.router,
        "family": report.family,
        "passed": all(result.ok for result in report.results),
        "checks": [result.as_dict() for result in report.results],
    }
