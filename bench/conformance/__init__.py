"""Check that a router keeps the rules of the bench: the same named checks for the command line, the
tests and third parties.

In a plugin's own tests:

    import pytest
    from bench.conformance import checks_for

    @pytest.mark.parametrize("check", checks_for("my_router.py"), ids=str)
    def test_conforms(check):
        check()
"""

import unittest
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.conformance import causal, construction, costs, learning, plans, state
from bench.conformance.check import Check, CheckResult, Examination
from bench.conformance.subject import Subject
from bench.routing.registry import Entry, find, load_all, load_file

__all__ = [
    "CHECKS",
    "BoundCheck",
    "Check",
    "CheckResult",
    "checks_for",
    "find_routers",
    "run_checks",
]

CHECKS: tuple[Check, ...] = (
    construction.builds_without_arguments,
    plans.plan_is_well_formed,
    plans.counts_match_mask,
    construction.runs_without_errors,
    costs.every_operation_is_priced,
    construction.same_seed_same_weights,
    plans.every_token_has_a_path,
    plans.capacity_is_kept_in_training,
    plans.any_length_and_batch,
    plans.bfloat16_agrees,
    costs.knob_raises_spending,
    state.inputs_are_left_alone,
    causal.causal,
    causal.batch_invariant,
    causal.evaluation_is_stationary,
    causal.tags_are_causal,
    state.deterministic,
    state.no_hidden_state,
    state.resumes_exactly,
    costs.budget_is_met,
    learning.parameters_change,
    learning.learns_planted_rule,
)
"""The first five are essential, in the order in which they depend on each other."""


@dataclass(frozen=True)
class BoundCheck:
    """A check of one router, to be called by a test; `str` gives its name."""

    check: Check
    examination: Examination

    def __str__(self) -> str:
        return self.check.name

    def __call__(self) -> None:
        """Raise an `AssertionError` with what was expected, what was seen and what to do.

        A check that depends on one that failed raises `unittest.SkipTest`, a skip for pytest too.
        """
        found = self.examination.result(self.check)
        if found.status == "not_run":
            raise unittest.SkipTest(found.reason)
        if not found.ok:
            raise AssertionError(
                f"{found.check}: expected {found.expected}; saw {found.seen}. {found.hint}"
            )


def find_routers(router: str | Path | Entry) -> list[Entry]:
    """Return the routers that a registered name, a plugin file or a folder of them stands for.

    Raises:
        UserError: no such name or file, a file that registers no router, or one whose name is
            taken.
    """
    if isinstance(router, Entry):
        return [router]
    text, path = str(router), Path(router)
    named = text in load_all()  # a plugin that takes a name of these is refused
    if not named and (text.endswith(".py") or len(path.parts) > 1 or path.is_dir()):
        return load_file(path)
    return [find(text, "Give one of these, a plugin's FILE.py or a folder of them.")]


def checks_for(
    router: str | Path | Entry,
    *,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    expected_failures: Mapping[str, str] | None = None,
) -> list[BoundCheck]:
    """Return every check of a router, as callables for `pytest.mark.parametrize`.

    Args:
        router: a registered name, a plugin file, or a registry entry.
        options: the router's options, by name.
        seed: of weights, text and noise.
        expected_failures: check -> reason. Strict: one that passes all the same is a failure.
    """
    waivers = expected_failures or {}
    examinations = [
        Examination(CHECKS, Subject(entry, dict(options or {}), seed), waivers)
        for entry in find_routers(router)
    ]
    return [BoundCheck(check, examination) for examination in examinations for check in CHECKS]


def run_checks(
    entry: Entry,
    *,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    expected_failures: Mapping[str, str] | None = None,
) -> list[CheckResult]:
    """Run every check of a router in order; arguments as those of `checks_for`."""
    subject = Subject(entry, dict(options or {}), seed)
    return Examination(CHECKS, subject, expected_failures or {}).results()
