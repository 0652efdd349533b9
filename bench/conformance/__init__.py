"""Conformance: the rules of the bench as named checks, the same for the command line, the tests and
third parties.

In a plugin's own tests:

    import pytest
    from bench.conformance import checks_for

    @pytest.mark.parametrize("check", checks_for("my_router.py"), ids=str)
    def test_conforms(check):
        check()
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.conformance import causal, construction, costs, learning, oracle, plans, prices, state
from bench.conformance.check import Check, Outcome, examine_all, examine_one, validate_waivers
from bench.conformance.subject import Subject
from bench.routing.registry import Entry, find, load_file

__all__ = ["CHECKS", "BoundCheck", "Check", "Outcome", "checks_for", "resolve", "run_checks"]

CHECKS: tuple[Check, ...] = (
    construction.builds_without_arguments,
    construction.no_side_effects,
    construction.every_operation_is_priced,
    construction.construction_is_cheap,
    construction.same_seed_same_weights,
    plans.plan_is_well_formed,
    plans.every_token_has_a_path,
    plans.counts_match_mask,
    plans.capacity_is_kept_in_training,
    plans.any_length_and_batch,
    plans.bfloat16_agrees,
    plans.knob_raises_spending,
    plans.inputs_are_left_alone,
    causal.causal,
    causal.batch_invariant,
    causal.evaluation_is_stationary,
    causal.tags_are_causal,
    state.deterministic,
    state.plan_depends_on_inputs_alone,
    state.leaves_the_model_alone,
    state.no_hidden_state,
    state.resumes_exactly,
    state.works_on_one_thread,
    prices.price_holds,
    costs.same_when_audited,
    costs.charged_as_executed,
    oracle.labels_are_charged,
    costs.ledger_equals_audit,
    costs.sparse_equals_reference,
    construction.budget_is_met,
    learning.parameters_change,
    learning.learns_planted_rule,
)


@dataclass(frozen=True)
class BoundCheck:
    """A check of one router, to be called by a test; `str` gives its name."""

    check: Check
    subject: Subject
    expected_failures: Mapping[str, str]

    def __str__(self) -> str:
        return self.check.name

    def __call__(self) -> None:
        """Raise an `AssertionError` that says what was expected, what was seen, and a hint, unless
        all is well.
        """
        outcome = examine_one(self.check, self.subject, self.expected_failures)
        if not outcome.ok:
            raise AssertionError(
                f"{self.check.name}: expected {outcome.expected}; saw {outcome.seen}. {outcome.hint}"
            )


def resolve(router: str | Path | Entry) -> list[Entry]:
    """The routers that a registered name or a plugin file stands for.

    Raises:
        UserError: no such name or file, or a file that registers no router.
    """
    if isinstance(router, Entry):
        return [router]
    return load_file(Path(router)) if str(router).endswith(".py") else [find(str(router))]


def checks_for(
    router: str | Path | Entry,
    *,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    expected_failures: Mapping[str, str] | None = None,
) -> list[BoundCheck]:
    """Every check of a router, as callables for `pytest.mark.parametrize`; models are built once
    and shared by them.

    Args:
        router: a registered name, a plugin file, or a registry entry.
        options: the router's options, by name.
        seed: of weights, text and noise.
        expected_failures: check -> reason. Strict: one that passes all the same is a failure.
    """
    waivers = expected_failures or {}
    validate_waivers(CHECKS, waivers)
    subjects = [Subject(entry, dict(options or {}), seed) for entry in resolve(router)]
    return [BoundCheck(check, subject, waivers) for subject in subjects for check in CHECKS]


def run_checks(
    entry: Entry,
    *,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    expected_failures: Mapping[str, str] | None = None,
) -> list[Outcome]:
    """Run every check of a router in order; arguments as those of `checks_for`."""
    return examine_all(CHECKS, Subject(entry, dict(options or {}), seed), expected_failures or {})
