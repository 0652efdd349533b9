"""Auxiliary losses against loops over tokens and experts, and at values known beforehand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bench.contract import LayerTrace, RouterInput, RoutingPlan, experts
from bench.losses import centre, load_balance, load_balance_single, mean_loss, router_z
from bench.rng import generator

BATCH, SEQ, COUNT = 2, 5, 3


def trace(mask: Tensor, scores: Tensor | None) -> LayerTrace:
    shape = mask.shape[:2]
    zeros = torch.zeros(*shape, 4)
    ids = torch.zeros(shape, dtype=torch.long)
    inputs = RouterInput(zeros, ids, ids, None, None, None, 0.0, "topk")
    return LayerTrace(0, experts(mask.shape[2]), inputs, RoutingPlan(mask, scores=scores), zeros, {})


def random_trace(seed: int, least: int = 1) -> LayerTrace:
    noise = generator(seed, "trace")
    scores = torch.randn(BATCH, SEQ, COUNT, generator=noise)
    extra = torch.rand(BATCH, SEQ, COUNT, generator=noise) < 0.3
    top = torch.zeros_like(extra).scatter(2, scores.topk(least).indices, True)
    return trace(top | extra, scores)


def naive_balance(found: LayerTrace, single: bool) -> float:
    """N * sum over experts of (share of assignments) * (mean probability), by loops."""
    assert found.plan.scores is not None
    tokens = [(b, t) for b in range(BATCH) for t in range(SEQ)]
    taken = [0.0] * COUNT
    probability = [0.0] * COUNT
    for b, t in tokens:
        chosen = found.plan.mask[b, t].tolist()
        exponentials = [math.exp(s) for s in found.plan.scores[b, t].tolist()]
        for e in range(COUNT):
            taken[e] += chosen[e] and (not single or sum(chosen) == 1)
            probability[e] += exponentials[e] / sum(exponentials) / len(tokens)
    total = max(sum(taken), 1.0)
    return COUNT * sum(t / total * p for t, p in zip(taken, probability, strict=True))


@given(st.integers(0, 200))
def test_load_balance_is_the_loop(seed: int) -> None:
    found = random_trace(seed)
    assert load_balance(found).item() == pytest.approx(naive_balance(found, single=False), rel=1e-5)
    assert load_balance_single(found).item() == pytest.approx(naive_balance(found, single=True), rel=1e-5)


def test_load_balance_is_one_at_uniform_and_n_at_collapse() -> None:
    uniform = torch.eye(COUNT, dtype=torch.bool).repeat(2, 1, 1)
    assert load_balance(trace(uniform, torch.zeros(2, COUNT, COUNT))).item() == pytest.approx(1)
    both = uniform | uniform.roll(1, -1)
    assert load_balance(trace(both, torch.zeros(2, COUNT, COUNT))).item() == pytest.approx(1)
    collapsed = torch.zeros(2, COUNT, COUNT, dtype=torch.bool)
    collapsed[..., 0] = True
    assert load_balance(trace(collapsed, collapsed * 100.0)).item() == pytest.approx(COUNT)


def test_tokens_with_two_experts_do_not_count_towards_single_load() -> None:
    everything = torch.ones(1, 4, COUNT, dtype=torch.bool)
    assert load_balance_single(trace(everything, torch.randn(1, 4, COUNT))).item() == 0


@given(st.integers(0, 50))
def test_router_z_is_the_mean_square_of_logsumexp(seed: int) -> None:
    found = random_trace(seed)
    assert found.plan.scores is not None
    squares = [math.log(sum(map(math.exp, row))) ** 2 for row in found.plan.scores.flatten(0, 1).tolist()]
    assert router_z(found).item() == pytest.approx(sum(squares) / len(squares), rel=1e-4)


def test_centre_is_binary_cross_entropy_of_the_upgrade() -> None:
    scores = torch.tensor([[[0.0, 2.0], [0.0, -1.0], [0.0, 0.5]]])
    chosen = torch.tensor([[True, False, False]])
    wanted = [math.log1p(math.exp(-2.0)), math.log1p(math.exp(-1.0)), math.log1p(math.exp(0.5))]
    found = centre(trace(torch.stack((~chosen, chosen), -1), scores))
    assert found.item() == pytest.approx(sum(wanted) / 3, rel=1e-5)


def test_a_plan_without_scores_is_refused() -> None:
    with pytest.raises(TypeError, match=r"plan\.scores"):
        router_z(trace(torch.ones(1, 2, 2, dtype=torch.bool), None))


def test_the_mean_over_layers_is_the_mean() -> None:
    assert mean_loss([torch.tensor(1.0), torch.tensor(4.0)]).item() == 2.5
