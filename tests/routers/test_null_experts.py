"""Null experts against a bank in which every null expert is written out."""

from dataclasses import replace

import pytest
import torch

from bench.config.row import RouterTraining
from bench.model.router_noise import TrainingNoise
from bench.routing.contract import LayerTrace
from tests.routers.asking import built, inputs, plan
from tests.routing.test_token_choice import affinities
from tests.world import CONFIG, equipped


@pytest.mark.parametrize(("num_null", "active"), [(8, 4), (4, 4), (16, 2)])
@pytest.mark.parametrize("renormalise", [True, False])
def test_a_token_takes_the_experts_among_its_best(
    num_null: int, active: int, renormalise: bool
) -> None:
    options = {"num_null": num_null, "active": active, "renormalise": renormalise}
    router = built("null_experts", options)
    seen = inputs()
    found = plan(router, seen)
    assert found.weight is not None
    assert router.mean_experts == active * 8 / (8 + num_null)
    logits = seen.hidden @ router.logits.weight.detach().T
    counts = set[int]()
    for mask, weight, row in zip(
        found.mask.flatten(0, 1).tolist(),
        found.weight.flatten(0, 1).tolist(),
        logits.flatten(0, 1).tolist(),
        strict=True,
    ):
        p = affinities(row[:8] + row[8:] * num_null, "softmax")
        best = sorted(range(8 + num_null), key=lambda slot: -p[slot])[:active]
        chosen = [slot for slot in best if slot < 8]
        assert mask == [e in chosen for e in range(8)] + [len(chosen) < active]
        total = sum(p[e] for e in chosen) if renormalise and len(chosen) > 1 else 1.0
        expected = [p[e] / total if e in chosen else 0.0 for e in range(8)]
        assert weight == pytest.approx([*expected, 0.0], abs=1e-6)
        counts.add(len(chosen))
    assert len(counts) > 1


@pytest.mark.parametrize("selection", ["topk", "causal"])
def test_a_bias_moves_the_choice_and_not_the_number(selection: str) -> None:
    """The recipe's bias, also on null experts, which it would otherwise add to or remove."""
    router = built("null_experts")
    noise = TrainingNoise(RouterTraining(balance_bias=0.001), CONFIG.d_model, router.paths, 2)
    assert noise.bias is not None
    noise.bias[:] = torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 0.5])
    seen = inputs(selection)
    plain, moved = plan(router, seen), plan(router, replace(seen, noise=noise))
    counts = plain.mask[..., :8].sum(-1)
    assert set(counts.flatten().tolist()) >= {1, 2, 3}
    # The most biased experts run, as many as without the bias.
    wanted = torch.arange(8).flip(0) < counts.unsqueeze(-1)
    assert torch.equal(moved.mask[..., :8], wanted)
    assert torch.equal(moved.mask[..., 8], plain.mask[..., 8])


def test_one_loss_balances_experts_and_null_experts() -> None:
    """The loss of Switch over 8 experts and 8 copies; copies share their load (AdaMoE)."""
    router = built("null_experts")
    seen = inputs()
    trace = LayerTrace(1, router.paths, seen, plan(router, seen), seen.hidden, {})
    logits = (seen.hidden @ router.logits.weight.detach().T).flatten(0, 1)
    loads, means = [0.0] * 16, [0.0] * 16
    for row in logits.tolist():
        p = affinities(row[:8] + row[8:] * 8, "softmax")
        means = [mean + value / len(logits) for mean, value in zip(means, p, strict=True)]
        for slot in sorted(range(16), key=lambda slot: -p[slot])[:4]:
            for place in [slot] if slot < 8 else range(8, 16):
                loads[place] += (1 if slot < 8 else 1 / 8) / (4 * len(logits))
    naive = 16 * sum(f * mean for f, mean in zip(loads, means, strict=True))
    loss = router.aux_losses["load_balance"]
    assert loss.compute(trace).item() == pytest.approx(naive, rel=1e-5)
    assert loss.weight == 0.01


def test_the_knob_of_evaluation_adds_to_the_experts() -> None:
    router = built("null_experts")
    taken = list[float]()
    for value in (-1.0, 0.0, 1.0):
        router.knob.fill_(value)
        taken.append(plan(router, inputs("causal")).mask[..., :8].sum(-1).float().mean().item())
    assert taken[0] == 0.0 and taken[2] == 4.0
    assert 0.5 < taken[1] < 3.5
    router.knob.zero_()
    assert torch.equal(plan(router, inputs("topk")).mask, plan(router, inputs("causal")).mask)


@pytest.mark.parametrize(("num_null", "mean"), [(8, 2.0), (24, 1.0)])
def test_a_threshold_holds_the_mean_of_balance(num_null: int, mean: float) -> None:
    """Hidden states that lean towards the null experts."""
    router = built("null_experts", {"num_null": num_null})
    taken = list[float]()
    for step in range(300):
        seen = inputs(seed=step % 7)
        seen = replace(seen, hidden=seen.hidden + 2 * router.logits.weight.detach()[-1])
        trace = LayerTrace(1, router.paths, seen, plan(router, seen), seen.hidden, {})
        router.after_step(trace)
        taken.append(trace.plan.mask[..., :8].sum(-1).float().mean().item())
    assert abs(taken[0] - mean) > 0.15 * mean  # it had something to do
    assert sum(taken[-70:]) / 70 == pytest.approx(mean, abs=0.05)


def test_a_fixed_threshold_is_0_and_has_no_knob() -> None:
    router = built("null_experts", {"threshold": "fixed"})
    assert router.knob is None and router.threshold == 0


def test_too_few_null_experts_are_refused() -> None:
    with pytest.raises(Exception, match="num_null is 3; a token may take 4 of them"):
        built("null_experts", {"num_null": 3})


def test_a_bias_evens_the_load_of_the_experts_while_most_tokens_take_none() -> None:
    """Hidden states with a mean that leans towards the null experts."""
    options = {"num_null": 24, "threshold": "fixed"}
    router = equipped("null_experts", options, balance_bias=0.005).decoder.routers[0]
    assert router.noise is not None
    logits = router.logits.weight.detach()
    loads = list[torch.Tensor]()
    for step in range(120):
        seen = inputs(seed=step % 7)
        hidden = seen.hidden[..., : logits.shape[1]] + 1 + 4 * logits[-1]
        found = plan(router, replace(seen, hidden=hidden, noise=router.noise))
        loads.append(found.mask[..., :8].float().mean((0, 1)))
        router.noise.after_step(found.mask)

    def unevenness(steps: list[torch.Tensor]) -> float:
        load = torch.stack(steps).mean(0)
        return float(load.max() / load.mean())

    assert unevenness(loads[:1]) > 3
    assert unevenness(loads[-35:]) < 1.5
