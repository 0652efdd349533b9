"""Every cheater is caught by the check that is there to catch it, and every check catches somebody."""

import re
import sys
from collections.abc import Callable

import pytest

from bench.conformance import CHECKS
from bench.conformance.check import Outcome, examine_one
from bench.conformance.subject import Subject
from bench.routing.registry import Entry

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
        "work_in_build": "construction_is_cheap",
        "work_of_numpy_in_build": "construction_is_cheap",
        "work_of_numpy_in_fit": "construction_is_cheap",
        "work_in_thread": "no_side_effects",
        "work_in_later_losses": "price_holds",
        "work_in_larger_batches": "price_holds",
        "work_cached_by_content": "price_holds",
        "work_cached_by_id": "plan_depends_on_inputs_alone",
        "work_in_backward": "ledger_equals_audit",
        "work_when_unseen": "same_when_audited",
        "elementwise_when_unseen": "same_when_audited",
        "wider_when_unseen": "same_when_audited",
        "plan_when_seen": "same_when_audited",
    },
    "unwatched": {
        "loss_when_unseen": "same_when_audited",
        "backward_when_unseen": "same_when_audited",
        "backward_in_the_middle": "ledger_equals_audit",
        "backward_to_own_parameter": "price_holds",
        "numbers_one_by_one": "every_operation_is_priced",
        "work_in_tensor_class": "every_operation_is_priced",
        "trains_the_backbone": "leaves_the_model_alone",
        "hook_on_every_optimiser": "no_side_effects",
    },
    "importing": {
        "reads_on_import": "no_side_effects",
        "works_on_import": "construction_is_cheap",
        "works_once": "construction_is_cheap",
    },
    "background": {"work_in_background": "works_on_one_thread"},
    "memory": {
        "memory_in_global": "no_hidden_state",
        "memory_in_dunder": "no_hidden_state",
        "memory_in_tensor": "no_hidden_state",
        "memory_in_helper": "no_hidden_state",
        "memory_in_class": "no_hidden_state",
        "memory_in_default": "no_hidden_state",
        "capacity_in_attribute": "capacity_is_kept_in_training",
        "weight_in_attribute": "resumes_exactly",
        "table_in_attribute": "resumes_exactly",
        "training_in_evaluation": "evaluation_is_stationary",
    },
    "reporting": {
        "counts_of_its_own": "counts_match_mask",
        "rewrites_its_plan": "charged_as_executed",
        "rewrites_the_layer_before": "inputs_are_left_alone",
        "rewrites_plans_of_forks": "charged_as_executed",
        "writes_to_inputs": "inputs_are_left_alone",
        "phones_home": "no_side_effects",
        "writes_a_file": "no_side_effects",
        "marks_a_file": "no_side_effects",
        "notes_a_variable": "no_side_effects",
        "reads_a_file": "no_side_effects",
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
        "score_without_gradient": "parameters_change",
        "gradient_reversed": "learns_planted_rule",
    },
}
BREAKS_DOWN = {"every_operation_is_priced", "any_length_and_batch", "builds_without_arguments"}
"""Checks whose finding is an error: there is nothing to compare where a router cannot be run."""
CASES = [
    (file, router, check) for file, caught in CAUGHT.items() for router, check in caught.items()
]
BY_NAME = {check.name: check for check in CHECKS}


def outcome_of(entry: Entry, check: str, seed: int = 0) -> Outcome:
    return examine_one(BY_NAME[check], Subject(entry, seed=seed), {})


@pytest.mark.parametrize(("file", "router", "check"), CASES, ids=[router for _, router, _ in CASES])
def test_cheater_is_caught_by_its_check(
    gallery: Gallery, file: str, router: str, check: str
) -> None:
    outcome = outcome_of(gallery(file)[router], check)
    assert outcome.status == "failed", outcome
    assert check in BREAKS_DOWN or not re.match(r"\w*(Error|Exception|Exit|Op): ", outcome.seen), (
        "caught, and not broken down by itself"
    )
    assert outcome.expected
    assert outcome.seen
    assert outcome.hint


def test_gallery_is_complete(gallery: Gallery) -> None:
    for file, caught in CAUGHT.items():
        assert set(gallery(file)) == set(caught)
    # What the last two compare is the harness's own work, not the router's; the tests of dispatcher
    # and oracle break it.
    assert set(BY_NAME) - {check for caught in CAUGHT.values() for check in caught.values()} == {
        "sparse_equals_reference",
        "labels_are_charged",
    }


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
