"""Check that a router keeps the rules of the bench.

The same named checks serve the command line, the tests and third parties. In a plugin's own tests:

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

from bench.conformance import causality_check, construction, costs, learning, plans, state
from bench.conformance.check import Check, CheckResult, Examination
from bench.conformance.subject import Subject
from bench.routing.load_routers import find, load_all, load_file
from bench.routing.registry import Entry

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
    causality_check.causal,
    causality_check.batch_invariant,
    causality_check.evaluation_is_stationary,
    causality_check.tags_are_causal,
    causality_check.decodes_alike,
    state.deterministic,
    state.no_hidden_state,
    state.resumes_exactly,
    costs.budget_is_met,
    learning.trains_in_bfloat16,
    learning.parameters_change,
    learning.learns_planted_rule,
)
"""All checks, in order. The first five are essential: all later checks depend on them."""


@dataclass(frozen=True)
class BoundCheck:
    """A check of one router, for a test to call. `str` gives its name."""

    check: Check
    examination: Examination

    def __str__(self) -> str:
        return self.check.name

    def __call__(self) -> None:
        """Raise an `AssertionError` with the expected value, the seen value and a hint.

        If a check that this one depends on has failed, raise `unittest.SkipTest`, which pytest
        reports as a skip.
        """
        found = self.examination.result(self.check)
        if found.status == "not_run":
            raise unittest.SkipTest(found.reason)
        if not found.ok:
            raise AssertionError(
                f"{found.check}: expected {found.expected}; saw {found.seen}. {found.hint}"
            )


def find_routers(router: str | Path | Entry) -> list[Entry]:
    """Return the routers of a registered name, a plugin file or a folder of plugin files.

    Raises:
        UserError: no such name or file, no router in the file, or a name that is taken.
    """
    if isinstance(router, Entry):
        return [router]
    text, path = str(router), Path(router)
    # A registered name comes first. A plugin cannot have such a name, so nothing is hidden.
    named = text in load_all()
    # Only names with an ending or a folder are taken for files, so a mistyped name gets a hint.
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
        options: options of the router, by name.
        seed: seed of weights, text and noise.
        expected_failures: check -> reason. If such a check passes, that is a failure.
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
    """Run every check of a router in order. For the arguments see `checks_for`."""
    subject = Subject(entry, dict(options or {}), seed)
    return Examination(CHECKS, subject, expected_failures or {}).results()
