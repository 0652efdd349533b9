"""Auxiliary losses against loops over tokens and experts, and at values known beforehand."""

import itertools
import math
import statistics
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bench.rng import generator
from bench.routing.contract import LayerTrace, RouterInput, RoutingPlan
from bench.routing.losses import (
    baseline,
    budget,
    centre,
    entropy,
    importance,
    jepa,
    load,
    load_balance,
    policy_gradient,
    rank,
    router_z,
    utility,
)
from bench.routing.paths import FFN_GATE, experts

BATCH, SEQ, COUNT = 2, 5, 3


def trace(mask: Tensor, scores: Tensor | None) -> LayerTrace:
    shape = mask.shape[:2]
    zeros = torch.zeros(*shape, 4)
    ids = torch.zeros(shape, dtype=torch.long)
    inputs = RouterInput(zeros, ids, ids, None, None, None, 0.0, "topk")
    return LayerTrace(
        0, experts(mask.shape[2]), inputs, RoutingPlan(mask, scores=scores), zeros, {}
    )


def random_trace(seed: int, least: int = 1) -> LayerTrace:
    noise = generator(seed, "trace")
    scores = torch.randn(BATCH, SEQ, COUNT, generator=noise)
    extra = torch.rand(BATCH, SEQ, COUNT, generator=noise) < 0.3
    top = torch.zeros_like(extra).scatter(2, scores.topk(least).indices, True)
    return trace(top | extra, scores)


def naive_balance(found: LayerTrace) -> float:
    """N * sum over experts of (share of assignments) * (mean probability), by loops."""
    assert found.plan.scores is not None
    tokens = [(b, t) for b in range(BATCH) for t in range(SEQ)]
    taken = [0.0] * COUNT
    probability = [0.0] * COUNT
    for b, t in tokens:
        chosen = found.plan.mask[b, t].tolist()
        exponentials = [math.exp(s) for s in found.plan.scores[b, t].tolist()]
        for e in range(COUNT):
            taken[e] += chosen[e]
            probability[e] += exponentials[e] / sum(exponentials) / len(tokens)
    total = max(sum(taken), 1.0)
    return COUNT * sum(t / total * p for t, p in zip(taken, probability, strict=True))


@given(st.integers(0, 200))
def test_load_balance_is_the_loop(seed: int) -> None:
    found = random_trace(seed)
    assert load_balance(found).item() == pytest.approx(naive_balance(found), rel=1e-5)


def test_load_balance_is_one_at_uniform_and_n_at_collapse() -> None:
    uniform = torch.eye(COUNT, dtype=torch.bool).repeat(2, 1, 1)
    assert load_balance(trace(uniform, torch.zeros(2, COUNT, COUNT))).item() == pytest.approx(1)
    both = uniform | uniform.roll(1, -1)
    assert load_balance(trace(both, torch.zeros(2, COUNT, COUNT))).item() == pytest.approx(1)
    collapsed = torch.zeros(2, COUNT, COUNT, dtype=torch.bool)
    collapsed[..., 0] = True
    assert load_balance(trace(collapsed, collapsed * 100.0)).item() == pytest.approx(COUNT)


def test_losses_leave_out_the_experts_that_every_token_takes() -> None:
    """Two shared experts do not change the losses of the others."""
    alone = random_trace(3, least=2)
    assert alone.plan.scores is not None
    shape = (BATCH, SEQ, 2)
    mask = torch.cat((torch.ones(shape, dtype=torch.bool), alone.plan.mask), -1)
    scores = torch.cat((torch.full(shape, 3.0), alone.plan.scores), -1)
    beside = replace(trace(mask, scores), paths=experts(COUNT, shared=2))
    for loss in (load_balance, importance, load, router_z, entropy):
        assert torch.equal(loss(beside), loss(alone))


@given(st.integers(0, 50))
def test_router_z_is_the_mean_square_of_logsumexp(seed: int) -> None:
    found = random_trace(seed)
    assert found.plan.scores is not None
    squares = [
        math.log(sum(map(math.exp, row))) ** 2 for row in found.plan.scores.flatten(0, 1).tolist()
    ]
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


def squared_variation(values: list[float]) -> float:
    return (statistics.pstdev(values) / statistics.mean(values)) ** 2


@given(st.integers(0, 50))
def test_importance_is_the_squared_variation_of_summed_gate_values(seed: int) -> None:
    """Gate values are the softmax over the two scores kept (arXiv:1701.06538, equations 3 to 7)."""
    scores = torch.randn(BATCH, SEQ, 4, generator=generator(seed, "scores"))
    mask = torch.zeros_like(scores, dtype=torch.bool).scatter(2, scores.topk(2).indices, True)
    found = trace(mask, scores)
    rows = []
    for row in scores.flatten(0, 1).tolist():
        kept = [math.exp(s) if s in sorted(row)[-2:] else 0.0 for s in row]
        rows.append([value / sum(kept) for value in kept])
    assert importance(found).item() == pytest.approx(
        squared_variation([sum(column) for column in zip(*rows, strict=True)]), rel=1e-4
    )


@given(st.integers(0, 50), st.floats(0.2, 3))
def test_load_is_the_chance_to_stay_among_the_top_two_under_fresh_noise(
    seed: int, deviation: float
) -> None:
    """The noise of one score is drawn again, all others staying.

    ArXiv:1701.06538, equations 8 to 10.
    """
    scores = torch.randn(BATCH, SEQ, 4, generator=generator(seed, "scores"))
    found = trace(
        torch.zeros_like(scores, dtype=torch.bool).scatter(2, scores.topk(2).indices, True), scores
    )
    found.plan.extras["noise_std"] = torch.full_like(scores, deviation)
    sums = [0.0] * 4
    for row in scores.flatten(0, 1).tolist():
        for expert, score in enumerate(row):
            second_of_others = sorted(row[:expert] + row[expert + 1 :])[-2]
            sums[expert] += statistics.NormalDist().cdf((score - second_of_others) / deviation)
    assert load(found).item() == pytest.approx(squared_variation(sums), rel=1e-3, abs=1e-6)


def test_load_of_paths_that_all_run_is_balanced() -> None:
    scores = torch.randn(2, 3, COUNT, requires_grad=True)
    found = load(trace(torch.ones(2, 3, COUNT, dtype=torch.bool), scores))
    found.backward()
    assert found.item() == 0
    assert scores.grad is not None
    assert scores.grad.isfinite().all()


@pytest.mark.parametrize("weight", [-20.0, -46.0, -60.0, -200.0])
def test_load_has_a_gradient_where_learned_noise_underflows(weight: float) -> None:
    scores = torch.randn(BATCH, SEQ, 4, generator=generator(3, "scores"))
    chosen = torch.zeros_like(scores, dtype=torch.bool).scatter(2, scores.topk(2).indices, True)
    found = trace(chosen, scores)
    noise = torch.full_like(scores, weight, requires_grad=True)
    clean = scores.clone().requires_grad_()
    deviation = torch.nn.functional.softplus(noise)
    found.plan.extras |= {"clean_scores": clean, "noise_std": deviation}
    value = load(found)
    value.backward()
    assert noise.grad is not None and noise.grad.isfinite().all()
    assert clean.grad is not None and clean.grad.isfinite().all()
    # So little noise changes no choice: the load is a count.
    counts = chosen.flatten(0, 1).sum(0).tolist()
    assert value.item() == pytest.approx(squared_variation(counts), rel=1e-5)


def gate_trace(scores: Tensor, worth: Tensor) -> LayerTrace:
    found = trace(
        torch.ones(*scores.shape, 2, dtype=torch.bool),
        torch.stack((torch.zeros_like(scores), scores), -1),
    )
    found.utility = worth
    return found


def test_utility_is_huber_to_the_standardised_labels_and_looks_at_no_others() -> None:
    scores = torch.tensor([[0.5, -3.0, 0.2], [2.5, 0.0, 7.0]], requires_grad=True)
    labels = torch.tensor([[0.1, -0.3, torch.nan], [0.7, torch.nan, torch.nan]])
    known = [0.1, -0.3, 0.7]
    targets = [(u - statistics.mean(known)) / statistics.pstdev(known) for u in known]
    errors = [abs(s - u) for s, u in zip([0.5, -3.0, 2.5], targets, strict=True)]
    found = utility(gate_trace(scores, labels))
    assert found.item() == pytest.approx(
        statistics.mean(e**2 / 2 if e < 1 else e - 0.5 for e in errors), rel=1e-5
    )
    found.backward()
    assert scores.grad is not None
    assert (scores.grad != 0).tolist() == (~labels.isnan()).tolist()


def test_rank_is_softplus_over_pairs_of_a_sequence_that_differ_enough() -> None:
    scores, worth = [[0.5, -3.0, 0.2], [2.5, 0.0, 7.0]], [[0.1, -0.3, 0.12], [0.7, math.nan, 0.0]]
    terms = [
        math.log1p(math.exp(-math.copysign(1, u[i] - u[j]) * (s[i] - s[j])))
        for s, u in zip(scores, worth, strict=True)
        for i, j in itertools.combinations(range(3), 2)
        if abs(u[i] - u[j]) > 0.05
    ]
    assert len(terms) == 3
    assert rank(
        gate_trace(torch.tensor(scores), torch.tensor(worth)), 0.05
    ).item() == pytest.approx(statistics.mean(terms), rel=1e-5)


@pytest.mark.parametrize("loss", [utility, lambda found: rank(found, 0.05)])
def test_without_any_label_nothing_is_lost_and_nothing_learnt(loss) -> None:
    scores = torch.randn(2, 3, requires_grad=True)
    found = loss(gate_trace(scores, torch.full((2, 3), torch.nan)))
    found.backward()
    assert found.item() == 0
    assert scores.grad is not None
    assert not scores.grad.any()
    with pytest.raises(TypeError, match="utility"):
        loss(trace(torch.ones(1, 2, 2, dtype=torch.bool), torch.zeros(1, 2, 2)))


def test_budget_is_the_squared_distance_of_the_mean_to_the_capacity() -> None:
    found = trace(torch.ones(1, 4, 2, dtype=torch.bool), None)
    found.plan.extras["upgrade"] = torch.tensor([[0.1, 0.9, 0.4, 0.6]])
    assert budget(found, 0.3).item() == pytest.approx(0.04)


def test_jepa_is_one_less_the_cosine_of_what_ran() -> None:
    noise = generator(0, "jepa")
    head, predicted = (
        torch.randn(2, 4, generator=noise),
        torch.randn(1, 3, 2, 2, generator=noise, requires_grad=True),
    )
    cheap, full = torch.randn(1, 4, generator=noise), torch.randn(3, 4, generator=noise)
    found = trace(torch.ones(1, 3, 2, dtype=torch.bool), None)
    found.paths = FFN_GATE
    found.plan.extras["latent"] = predicted
    found.path_updates = {"cheap": (torch.tensor([1]), cheap), "full": (None, full)}

    def distance(token: int, path: int, output: Tensor) -> float:
        # the length of a target does not matter to a cosine
        ours, target = predicted[0, token, path].tolist(), (head @ output).tolist()
        return 1 - sum(a * b for a, b in zip(ours, target, strict=True)) / math.hypot(
            *ours
        ) / math.hypot(*target)

    wanted = (
        distance(1, 0, cheap[0]) + statistics.mean(distance(t, 1, full[t]) for t in range(3))
    ) / 2
    value = jepa(found, head)
    assert value.item() == pytest.approx(wanted, rel=1e-5)
    value.backward()
    assert predicted.grad is not None
    assert not predicted.grad[0, [0, 2], 0].any()  # cheap ran on token 1 alone


def test_reinforce_blames_the_choice_and_teaches_the_baseline_apart() -> None:
    logits = torch.tensor([[[0.0, 1.0], [0.0, -0.5]]], requires_grad=True)
    guess = torch.tensor([[2.0, 0.5]], requires_grad=True)
    found = trace(torch.tensor([[[False, True], [True, False]]]), logits)
    found.plan.extras["baseline"] = guess
    found.token_loss = torch.tensor([[1.0, 2.0]])
    log_p = [-math.log1p(math.exp(-1.0)), -math.log1p(math.exp(-0.5))]
    blame = policy_gradient(found, "following")
    assert blame.item() == pytest.approx(
        (log_p[0] * (1.5 - 2.0) + log_p[1] * (2.0 - 0.5)) / 2, rel=1e-5
    )
    blame.backward()
    assert guess.grad is None
    taught = baseline(found, "following")
    assert taught.item() == pytest.approx((0.5 * 0.25 + (1.5 - 0.5)) / 2)
    taught.backward()
    assert guess.grad is not None


def test_entropy_of_the_choice() -> None:
    p = [0.7, 0.2, 0.1]
    found = trace(torch.ones(1, 1, 3, dtype=torch.bool), torch.tensor([[p]]).log())
    assert entropy(found).item() == pytest.approx(-sum(x * math.log(x) for x in p), rel=1e-5)
    found.plan.extras["probability"] = torch.tensor([[[1.0, 0.0, 0.0]]])
    assert entropy(found).item() == 0
