"""Describe and check routers from outside, in separate processes and never in the parent."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.config.base import hash_of
from bench.config.row import RowConfig
from bench.config.suite import SuiteConfig
from bench.errors import unknown
from bench.executors.isolation import in_fresh_process
from bench.files import file_lock, write_atomically
from bench.record import RULES_VERSION, CheckOutcome
from bench.routing.load_routers import load_all, load_file, load_shipped
from bench.routing.registry import Entry, RouterCard

OUTCOMES_FOLDER = ".checks"
"""Folder of a tree of records for the results of checks, by source and options."""
NO_PLUGIN = "no plugin that was given registers it: add --plugin FILE.py."
LEFT_TO_THE_RUN = frozenset({"budget_is_met"})
"""Checks that a run ignores. A row that misses the budget is marked off budget, with a figure."""


def plugin_files(suite: SuiteConfig, given: Sequence[Path] = ()) -> list[Path]:
    """Return the plugins that a suite names, then those given on the command line, each once."""
    return list(dict.fromkeys([*map(Path, suite.plugins), *given]))


def describe_rows(
    rows: Sequence[RowConfig], plugin_files: Sequence[Path], row_names: Collection[str] = ()
) -> list[RouterCard]:
    """Return the card of each row's router.

    Args:
        rows: the rows.
        plugin_files: files that may register their routers, imported in a fresh process.
        row_names: further valid names, for the error about an unknown name.

    Raises:
        UserError: an unknown router or option, or a plugin that cannot be imported.
    """
    requests = [(row.router, row.options) for row in rows]
    # Without plugins no fresh process is needed, which saves seconds.
    shipped = load_shipped()
    if not plugin_files and all(_is_shipped(shipped, *request) for request in requests):
        return [shipped[router].describe(options) for router, options in requests]
    return in_fresh_process(_describe, requests, list(plugin_files), sorted(row_names))


def _is_shipped(shipped: Mapping[str, Entry], router: str, options: Mapping[str, Any]) -> bool:
    """Return whether a router and the routers named in its options are all shipped."""
    if router not in shipped:
        return False
    named = [options[name] for name in shipped[router].router.wraps if name in options]
    inner = [one.get("router", "") if isinstance(one, Mapping) else one for one in named]
    return all(name in shipped for name in inner)


def _describe(
    requests: list[tuple[str, dict[str, Any]]], plugin_files: list[Path], row_names: list[str]
) -> list[RouterCard]:
    known = load_all(plugin_files)
    for router, _ in requests:
        if router not in known:
            # A suite may list rows of a plugin that was not given.
            listed = "The suite lists this row, and " if router in row_names else ""
            advice = f"{listed}{NO_PLUGIN}" if listed else NO_PLUGIN[0].upper() + NO_PLUGIN[1:]
            raise unknown("router", router, {*known, *row_names}, advice)
    return [known[router].describe(options) for router, options in requests]


def checks_of(
    entry: Entry, options: Mapping[str, Any], plugin_files: Sequence[Path], root: Path
) -> tuple[CheckOutcome, ...]:
    """Return the results of `bench check` for a router from outside and the routers it wraps.

    A source is checked once with its options, in a fresh process. The results are kept below
    `root`. Shipped routers have none, because the tests check them.
    """
    if not entry.brings_from_outside(options):
        return ()
    file = checks_path(entry, options, root)
    # Of several workers with the same plugin, one checks and the others wait for the result.
    file.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(file.with_suffix(".lock")):
        if not file.is_file():
            found = in_fresh_process(_check, entry.name, dict(options), list(plugin_files))
            write_atomically(file, json.dumps(found, indent=1))
        return tuple(map(CheckOutcome.model_validate, json.loads(file.read_text(encoding="utf-8"))))


def checks_path(entry: Entry, options: Mapping[str, Any], root: Path) -> Path:
    """Return the file for the results of a source with its options."""
    # Another source, other options, other rules or another bench: check again.
    about = [entry.name, entry.source_hash(options), dict(options), RULES_VERSION, bench_hash()]
    return root / OUTCOMES_FOLDER / f"{hash_of(json.loads(json.dumps(about, default=repr)))}.json"


def bench_hash() -> str:
    """Return the SHA-256 of the bench's own sources, because results of checks depend on them."""
    files = sorted(Path(__file__).resolve().parents[1].rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _check(name: str, options: dict[str, Any], plugin_files: list[Path]) -> list[dict[str, Any]]:
    """Run the checks of the routers that a router wraps, then its own. Return plain data."""
    import torch

    from bench.conformance import CHECKS, run_checks
    from bench.runner.provenance import THREADS

    torch.set_num_threads(THREADS)
    for file in plugin_files:
        load_file(file)
    entry = load_all()[name]
    pairs = [*entry.wrapped(options).values(), (entry, options)]
    waivable = {check.name for check in CHECKS if check.waivable} | LEFT_TO_THE_RUN
    found: list[dict[str, Any]] = []
    for one, theirs in pairs:
        if not one.brings_from_outside(theirs):
            continue
        for outcome in run_checks(one, options=theirs):
            failed = outcome.status == "failed"
            # A run asks only for the rules that keep a row honest.
            waived = failed and outcome.check in waivable
            seen = f"expected {outcome.expected}; saw {outcome.seen}. {outcome.hint}"
            found.append(
                {
                    "router": one.name,
                    "check": outcome.check,
                    "status": "waived" if waived else outcome.status,
                    "reason": " ".join((seen if failed else outcome.reason).split()),
                }
            )
    return found


def offence(checks: Sequence[CheckOutcome]) -> str:
    """Return the reason why a router with these results may not run, or an empty text."""
    failed = next((check for check in checks if check.status == "failed"), None)
    return f"`bench check {failed.router}` fails {failed.check}: {failed.reason}" if failed else ""
