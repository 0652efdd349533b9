"""Expert threshold: a moving quantile of each expert's own affinities."""

import pytest
import torch

from bench.routing.contract import LayerTrace
from tests.routers.asking import built, inputs, plan


def test_an_expert_takes_what_lies_above_its_threshold() -> None:
    router = built("expert_threshold")
    router.quantile.copy_(torch.linspace(0.3, 0.7, 8))
    router.knob.copy_(-torch.linspace(0.7, 0.3, 8))
    seen = inputs()
    s = (seen.hidden @ router.logits.weight.detach().T).sigmoid()
    training, evaluation = plan(router, inputs("topk")), plan(router, inputs("causal"))
    assert torch.equal(training.mask, s > torch.linspace(0.3, 0.7, 8))
    assert torch.equal(evaluation.mask, s > torch.linspace(0.7, 0.3, 8))
    assert training.weight is not None
    assert torch.allclose(training.weight, s * training.mask)


def test_thresholds_are_running_means_of_quantiles() -> None:
    """A plain mean over the first steps, exponential after; the naive quantile sorts."""
    router = built("expert_threshold", {"momentum": 0.5})
    naive = [0.5] * 8
    for step in range(4):
        seen = inputs(seed=step)
        trace = LayerTrace(1, router.paths, seen, plan(router, seen), seen.hidden, {})
        router.after_step(trace)
        s = (seen.hidden @ router.logits.weight.detach().T).sigmoid().flatten(0, 1)
        weight = max(1 / (step + 1), 0.5)
        for expert in range(8):
            column = sorted(s[:, expert].tolist())
            place = (len(column) - 1) * 0.75
            low = int(place)
            found = column[low] + (place - low) * (column[low + 1] - column[low])
            naive[expert] += weight * (found - naive[expert])
        assert router.quantile.tolist() == pytest.approx(naive, abs=1e-5)


@pytest.mark.parametrize("mean", [1.0, 3.0])
def test_every_expert_ends_with_its_share(mean: float) -> None:
    router = built("expert_threshold", {"mean_experts": mean})
    for step in range(40):
        seen = inputs(seed=step)
        trace = LayerTrace(1, router.paths, seen, plan(router, seen), seen.hidden, {})
        router.after_step(trace)
    loads = torch.cat([plan(router, inputs(seed=step)).mask for step in range(40, 60)])
    assert torch.allclose(loads.float().mean((0, 1)), torch.full((8,), mean / 8), atol=0.04)
