"""Which routers may be run at all.

Those that come from outside are checked where their rows are made.
"""

import json
from collections.abc import Mapping
from typing import Any

from bench.conformance import CHECKS, run_checks
from bench.routing.registry import Entry

_found: dict[tuple[str, str, str], str] = {}
_LEFT_TO_THE_RUN = frozenset({"budget_is_met"})
"""A row that misses the budget is marked off budget, which says more."""


def inadmissible(entry: Entry, options: Mapping[str, Any]) -> str:
    """Why no row may be made of a router with these options where it, or one it wraps, comes from
    outside; empty if it may.

    Ours are held to the same checks by the tests at every commit. A failure that a router may have
    with a reason (`Check.waivable`) is no reason to refuse it. The answer is kept for the life of
    the process.
    """
    for inner, theirs in entry.wrapped(options).values():
        if offence := inadmissible(inner, theirs):
            return f"Wrapped router {inner.name!r}: {offence}"
    if not entry.brings_from_outside(options):
        return ""
    key = entry.name, entry.source_hash(options), json.dumps(options, sort_keys=True, default=repr)
    if key not in _found:
        strict = {check.name for check in CHECKS if not check.waivable} - _LEFT_TO_THE_RUN
        outcomes = run_checks(entry, options=options)
        failed = next(
            (
                outcome
                for outcome in outcomes
                if outcome.status == "failed" and outcome.check in strict
            ),
            None,
        )
        told = (
            f"`bench check` fails {failed.check}: expected {failed.expected}; saw {failed.seen}. {failed.hint}"
            if failed
            else ""
        )
        _found[key] = " ".join(told.split())
    return _found[key]
