"""Adaptive gating against its definition, token by token."""

from dataclasses import replace

import pytest
import torch

from bench.config.row import RouterTraining
from bench.evaluation.evaluate import evaluate
from bench.model.router_noise import TrainingNoise
from bench.routing.contract import LayerTrace
from tests.routers.asking import built, inputs, plan
from tests.routing.test_token_choice import affinities
from tests.world import CONFIG, model, windows


@pytest.mark.parametrize("most", [2, 3, 8])
@pytest.mark.parametrize("threshold", [0.0, 0.02, 0.1, 1.0])
def test_experts_run_that_the_first_leads_by_no_more_than_t(threshold: float, most: int) -> None:
    options = {"threshold": "fixed", "initial_threshold": threshold, "max_experts": most}
    router = built("adaptive_moe", options)
    logits = inputs().hidden @ router.logits.weight.detach().T
    for selection in ("topk", "causal"):
        found = plan(router, inputs(selection))
        assert found.weight is not None
        for mask, weight, row in zip(
            found.mask.flatten(0, 1).tolist(),
            found.weight.flatten(0, 1).tolist(),
            logits.flatten(0, 1).tolist(),
            strict=True,
        ):
            p = affinities(row, "softmax")
            best = sorted(range(8), key=lambda e: -p[e])[:most]
            gaps = [p[best[0]] - p[e] for e in best]
            if any(abs(gap - threshold) < 1e-6 for gap in gaps[1:]):
                continue
            chosen = {e for e, gap in zip(best, gaps, strict=True) if gap <= threshold}
            assert {e for e in range(8) if mask[e]} == chosen
            assert weight == pytest.approx([p[e] if e in chosen else 0 for e in range(8)], abs=1e-6)


def test_a_bias_moves_the_choice_and_not_the_confidence() -> None:
    """The gap uses the router's own probabilities, not the experts that the bias picks."""
    options = {"threshold": "fixed", "initial_threshold": 0.02}
    recipe, own = (
        built("adaptive_moe", options),
        built("adaptive_moe", {**options, "balance": "sign_bias"}),
    )
    noise = TrainingNoise(RouterTraining(balance_bias=0.001), CONFIG.d_model, recipe.paths, 1)
    seen = inputs()
    assert noise.bias is not None and own.balancer.bias is not None
    for bias in (noise.bias, own.balancer.bias):
        bias[:2] = torch.tensor([1.0, 0.5])
    for router, found in (
        (recipe, plan(recipe, replace(seen, noise=noise))),
        (own, plan(own, seen)),
    ):
        logits = seen.hidden @ router.logits.weight.detach().T
        counts = set[int]()
        for mask, row in zip(
            found.mask.flatten(0, 1).tolist(), logits.flatten(0, 1).tolist(), strict=True
        ):
            first, second = sorted(affinities(row, "softmax"))[-1:-3:-1]
            if abs(first - second - 0.02) > 1e-6:
                expected = [0, 1] if first - second <= 0.02 else [0]
                assert [e for e in range(8) if mask[e]] == expected
                counts.add(sum(mask))
        assert counts == {1, 2}


def test_a_single_expert_keeps_a_gradient_when_weights_are_renormalised() -> None:
    router = built("adaptive_moe", {"renormalise": True, "threshold": "fixed"})
    router.threshold.zero_()
    found = router(inputs())
    assert found.mask.sum(-1).eq(1).all()
    (gradient,) = torch.autograd.grad(found.weight.square().sum(), router.logits.weight)
    assert gradient.norm() > 1e-3


@pytest.mark.parametrize(("most", "mean"), [(2, 1.2), (4, 2.0)])
def test_it_takes_as_many_experts_as_it_promises_once_controlled(most: int, mean: float) -> None:
    found = model("adaptive_moe", {"max_experts": most, "mean_experts": mean})
    router = found.decoder.routers[0]
    taken: list[float] = []
    for step in range(150):
        seen = inputs(seed=step % 7)
        trace = LayerTrace(1, router.paths, seen, plan(router, seen), seen.hidden, {})
        router.after_step(trace)
        taken.append(trace.plan.mask.sum(-1).float().mean().item())
    assert sum(taken[-70:]) / 70 == pytest.approx(mean, abs=0.03)
    assert taken[0] > mean + 0.3  # it had something to do


@pytest.mark.parametrize(("most", "threshold"), [(2, 0.05), (4, 0.1)])
def test_with_the_measured_mean_a_fixed_threshold_costs_the_budget(
    most: int, threshold: float
) -> None:
    """Before training experts add nothing to the stream, so both runs take as many of them."""
    options = {"threshold": "fixed", "initial_threshold": threshold, "max_experts": most}
    text = windows(20)
    first = model("adaptive_moe", options)
    missed = evaluate(first, text, 20, keep=True)
    mean = sum(sum(shares) for shares in missed.chosen.values()) / 3
    assert 1.3 < mean < most - 0.1
    # One unit of the width of an expert, for the mean token, in FLOPs.
    unit = 3 * mean * 6 * CONFIG.d_model
    assert missed.active - first.solution.budget > 3 * unit
    second = model("adaptive_moe", {**options, "mean_experts": mean})
    assert second.solution.expert_width < first.solution.expert_width
    assert evaluate(second, text, 20).active == pytest.approx(second.solution.budget, abs=unit / 2)


def test_the_balance_counts_tokens_with_one_expert_alone() -> None:
    router = built("adaptive_moe", {"threshold": "fixed", "initial_threshold": 0.05})
    seen = inputs()
    trace = LayerTrace(1, router.paths, seen, plan(router, seen), seen.hidden, {})
    p = (seen.hidden @ router.logits.weight.detach().T).softmax(-1)
    single = trace.plan.mask.sum(-1) == 1
    assert 0.1 < single.float().mean() < 0.9
    naive = 8 * (trace.plan.mask[single].float().mean(0) * p.mean((0, 1))).sum()
    loss = router.aux_losses["load_balance"]
    assert loss.weight == 0.01
    assert torch.allclose(loss.compute(trace), naive)
