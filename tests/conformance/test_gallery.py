"""Every cheater is caught by its check, and every check catches somebody."""

import sys
from collections.abc import Callable

import pytest

from bench.conformance import CHECKS, run_checks
from bench.conformance.check import examine_one
from bench.conformance.subject import Subject
from bench.routing.registry import Entry

pytestmark = pytest.mark.usefixtures("full_proof")
Gallery = Callable[[str], dict[str, Entry]]

CAUGHT = {
    "peeking": {
        "peek_top_k": "causal",
        "peek_rarely": "causal",
        "peek_at_label": "causal",
        "peek_at_tags": "tags_are_causal",
        "peek_at_batch": "batch_invariant",
        "peek_at_batch_size": "batch_invariant",
    },
    "hidden_work": {
        "work_in_custom_op": "every_operation_is_priced",
        "work_in_numpy": "every_operation_is_priced",
        "numbers_one_by_one": "every_operation_is_priced",
    },
    "memory": {
        "memory_in_attribute": "no_hidden_state",
        "capacity_in_attribute": "capacity_is_kept_in_training",
        "weight_in_attribute": "resumes_exactly",
        "table_in_attribute": "resumes_exactly",
        "training_in_evaluation": "evaluation_is_stationary",
    },
    "reporting": {
        "counts_of_its_own": "counts_match_mask",
        "rewrites_the_layer_before": "inputs_are_left_alone",
        "writes_to_inputs": "inputs_are_left_alone",
    },
    "careless": {
        "option_without_default": "builds_without_arguments",
        "weight_not_finite": "plan_is_well_formed",
        "mask_of_numbers": "plan_is_well_formed",
        "leaves_tokens_out": "every_token_has_a_path",
        "spends_more_in_training": "capacity_is_kept_in_training",
        "spends_more_in_the_middle": "capacity_is_kept_in_training",
        "one_length_only": "any_length_and_batch",
        "knob_reversed": "knob_raises_spending",
        "hashes_in_floating_point": "bfloat16_agrees",
        "drawn_from_numpy": "same_seed_same_weights",
        "random_from_nowhere": "deterministic",
        "seeds_everything": "deterministic",
        "spends_at_will": "budget_is_met",
        "quantile_of_scores": "trains_in_bfloat16",
        "score_without_gradient": "parameters_change",
        "gradient_reversed": "learns_planted_rule",
        "pointwise_by_mistake": "decodes_alike",
        "typo_in_build": "builds_without_arguments",
        "typo_in_forward": "plan_is_well_formed",
        "typo_in_loss": "runs_without_errors",
        "typo_after_step": "runs_without_errors",
        "unpriced_in_loss": "every_operation_is_priced",
        "unpriced_after_step": "every_operation_is_priced",
        "no_plan": "plan_is_well_formed",
    },
}
CASES = [
    (file, router, check) for file, caught in CAUGHT.items() for router, check in caught.items()
]
BY_NAME = {check.name: check for check in CHECKS}


@pytest.mark.parametrize(("file", "router", "check"), CASES, ids=[router for _, router, _ in CASES])
def test_cheater_is_caught_by_its_check(
    gallery: Gallery, file: str, router: str, check: str
) -> None:
    subject = Subject(gallery(file)[router])
    found = examine_one(BY_NAME[check], subject, {})
    assert found.status == "failed", found
    assert found.expected and found.seen and found.hint


def test_gallery_is_complete(gallery: Gallery) -> None:
    for file, caught in CAUGHT.items():
        assert set(gallery(file)) == set(caught)
    assert set(BY_NAME) == {check for caught in CAUGHT.values() for check in caught.values()}


FAULTS = {
    "option_without_default": "options without a default: width",
    "typo_in_build": "name 'spce' is not defined in TypoInBuild.build (careless.py:",
    "typo_in_forward": "name 'inptus' is not defined in TypoInForward.forward (careless.py:",
    "no_plan": "None",
    "mask_of_numbers": "torch.uint8",
    "weight_not_finite": "nan or infinity",
    "typo_in_loss": "no attribute 'wieght' in TypoInLoss._loss (careless.py:",
    "typo_after_step": "no attribute 'count' in TypoAfterStep.after_step (careless.py:",
    "unpriced_in_loss": "on shapes [(32, 32)] in UnpricedInLoss._loss (careless.py:",
    "unpriced_after_step": "in UnpricedAfterStep.after_step (careless.py:",
}


@pytest.mark.parametrize("router", FAULTS)
def test_a_fault_in_the_code_is_reported_once_with_its_line(gallery: Gallery, router: str) -> None:
    results = run_checks(gallery("careless")[router])
    (failed,) = [found for found in results if found.status == "failed"]
    assert failed.check == CAUGHT["careless"][router]
    assert FAULTS[router] in failed.seen
    if router in ("mask_of_numbers", "weight_not_finite"):
        assert ".forward (careless.py:" in failed.expected
    after = results[results.index(failed) + 1 :]
    assert {found.status for found in after} == {"not_run"}
    assert {found.reason for found in after} == {f"{failed.check} failed"}


@pytest.mark.parametrize(
    "router",
    [
        "paid_plainly",
        "paid_elementwise",
        "paid_without_gradient",
        "paid_after_step",
        "paid_in_loss",
    ],
)
def test_work_in_odd_places_is_paid(gallery: Gallery, router: str) -> None:
    """Three steps with the work cost at least as much more than three without as the work's own
    products, 2mnk each.
    """
    entries = gallery("paid_work")
    width = sys.modules[entries[router].router.__module__].WIDTH
    subjects = [Subject(entries[name]) for name in ("paid_nothing", router)]
    spent: list[float] = []
    for subject in subjects:
        model = subject.assemble()
        subject.train(model, steps=3)
        spent.append(
            sum(cost for part, cost in model.ledger.spent.items() if not part.startswith("paths"))
        )
    tokens, layers, d_model = 3 * 8 * 32, 3, 32
    assert spent[1] - spent[0] >= 2 * d_model * width * tokens * layers


def test_a_listed_failure_must_fail(gallery: Gallery) -> None:
    subject = Subject(gallery("careless")["score_without_gradient"])
    waived = examine_one(BY_NAME["parameters_change"], subject, {"parameters_change": "on purpose"})
    assert (waived.status, waived.ok, waived.reason) == ("expected_failure", True, "on purpose")
    strict = examine_one(BY_NAME["bfloat16_agrees"], subject, {"bfloat16_agrees": "on purpose"})
    assert (strict.status, strict.ok) == ("failed", False)
