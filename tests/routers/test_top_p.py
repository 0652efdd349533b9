"""Top-p against its definition, token by token."""

import pytest
import torch

from bench.routing.contract import LayerTrace
from tests.routers.asking import built, inputs, plan
from tests.routing.test_token_choice import affinities


@pytest.mark.parametrize("p", [0.0, 0.3, 0.4, 0.7, 1.0])
def test_a_token_takes_the_fewest_experts_that_reach_p(p: float) -> None:
    router = built("top_p", {"threshold": "fixed", "initial_threshold": p})
    seen = inputs()
    found = plan(router, seen)
    assert found.weight is not None
    logits = seen.hidden @ router.logits.weight.detach().T
    for mask, weight, row in zip(
        found.mask.flatten(0, 1).tolist(),
        found.weight.flatten(0, 1).tolist(),
        logits.flatten(0, 1).tolist(),
        strict=True,
    ):
        probability = affinities(row, "softmax")
        order = sorted(range(8), key=lambda e: -probability[e])
        chosen, total = [order[0]], probability[order[0]]
        while total < p and len(chosen) < 8:
            chosen.append(order[len(chosen)])
            total += probability[chosen[-1]]
        assert {e for e in range(8) if mask[e]} == set(chosen)
        assert weight == pytest.approx(
            [q if e in chosen else 0 for e, q in enumerate(probability)], abs=1e-6
        )


@pytest.mark.parametrize("wanted", [1.5, 3.0])
def test_a_controlled_p_holds_the_mean(wanted: float) -> None:
    router = built("top_p", {"mean_experts": wanted})
    taken = list[float]()
    for step in range(200):
        seen = inputs(seed=step % 7)
        trace = LayerTrace(1, router.paths, seen, plan(router, seen), seen.hidden, {})
        router.after_step(trace)
        taken.append(trace.plan.mask.sum(-1).float().mean().item())
    assert sum(taken[-70:]) / 70 == pytest.approx(wanted, abs=0.05)


def test_its_losses_are_those_of_the_paper() -> None:
    weights = {name: loss.weight for name, loss in built("top_p").aux_losses.items()}
    assert weights == {"load_balance": 0.01, "entropy": 1e-4}
    assert not torch.equal(
        plan(built("top_p"), inputs()).mask,
        plan(built("top_p", {"initial_threshold": 0.1}), inputs()).mask,
    )
