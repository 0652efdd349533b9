"""Selection: exactly the capacity in training, a plain threshold in evaluation."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.rng import generator
from bench.routing.capacity import gate_plan, tokens_kept, top_k_mask, upgrade
from tests.routing.router_inputs import inputs, spec


@given(st.integers(1, 3), st.integers(1, 12), st.floats(0, 1), st.integers(0, 9))
def test_training_upgrades_the_highest_scores_of_each_sequence(
    batch: int, seq: int, capacity: float, seed: int
) -> None:
    scores = torch.randint(
        -3, 4, (batch, seq), generator=generator(seed, "scores")
    ).float()  # with ties
    chosen, count = upgrade(scores, inputs(batch, seq, "topk"), spec(capacity), None)
    assert count == round(capacity * seq)
    for row, marks in zip(scores, chosen, strict=True):
        assert marks.sum() == count
        if 0 < count < seq:
            assert row[marks].min() >= row[~marks].max()


@given(st.floats(-2, 2))
def test_evaluation_compares_each_score_with_the_knob_alone(knob: float) -> None:
    scores = torch.randn(2, 9, generator=generator(0, "scores"))
    chosen, count = upgrade(scores, inputs(2, 9, "causal"), spec(), torch.tensor(knob))
    assert count is None
    limit = float(torch.tensor(-knob))
    assert chosen.tolist() == [[score > limit for score in row] for row in scores.tolist()]
    first, _ = upgrade(scores[:, :4], inputs(2, 4, "causal"), spec(), torch.tensor(knob))
    assert torch.equal(first, chosen[:, :4])


def test_without_a_knob_the_threshold_is_zero() -> None:
    chosen, _ = upgrade(torch.tensor([[-1.0, 0.0, 1.0]]), inputs(1, 3, "causal"), spec(), None)
    assert chosen.tolist() == [[False, False, True]]


def test_selection_passes_no_gradient() -> None:
    scores = torch.randn(1, 5, requires_grad=True)
    chosen, _ = upgrade(scores, inputs(1, 5, "topk"), spec(), None)
    assert not chosen.requires_grad


@pytest.mark.parametrize(
    ("capacity", "kept"), [(0.0, 0), (0.125, 16), (0.5, 64), (0.999, 128), (1.0, 128)]
)
def test_capacity_is_rounded_to_the_nearest_token(capacity: float, kept: int) -> None:
    assert tokens_kept(capacity, 128) == kept


def test_top_k_of_equal_scores_is_still_k() -> None:
    assert top_k_mask(torch.zeros(3, 7), 4).sum(1).tolist() == [4, 4, 4]


def test_a_gate_plan_sends_every_token_one_way() -> None:
    chosen = torch.tensor([[True, False, True]])
    scores = torch.tensor([[1.0, -2.0, 3.0]])
    plan = gate_plan(chosen, 2, scores, (1 - scores, scores))
    assert plan.mask.tolist() == [[[False, True], [True, False], [False, True]]]
    assert plan.counts == (1, 2)
    assert plan.scores is not None
    assert plan.scores.tolist() == [[[0, 1], [0, -2], [0, 3]]]
    assert plan.weight is not None
    assert plan.weight.tolist() == [[[0, 1], [3, -2], [-2, 3]]]
    assert gate_plan(chosen, None).counts is None
