"""ReMoE: a rectifier whose sparsity is controlled."""

import pytest
import torch

from bench.routing.contract import LayerTrace, Router
from tests.routers.asking import built, inputs, plan
from tests.world import fit, model, run_of, tokens


def traced(router: Router) -> LayerTrace:
    seen = inputs()
    return LayerTrace(1, router.paths, seen, router(seen), seen.hidden, {})


def test_the_rectifier_chooses_and_weighs() -> None:
    router = built("remoe")
    logits = inputs().hidden @ router.logits.weight.detach().T
    router.knob.fill_(0.3)
    router.shift.fill_(-0.1)
    for selection, shift in (("topk", -0.1), ("causal", 0.3)):
        found = plan(router, inputs(selection))
        assert torch.equal(found.mask, logits + shift > 0)
        assert found.weight is not None
        assert torch.allclose(found.weight, (logits + shift).relu())


def test_the_penalty_is_that_of_the_paper() -> None:
    """Section 3.4: f_e = E / (k T) sum_t 1{w > 0}; the sum over e of f_e w, a mean over tokens."""
    router = built("remoe")
    router.factor.fill_(0.5)
    trace = traced(router)
    weight = (trace.inputs.hidden @ router.logits.weight.T).relu().flatten(0, 1).tolist()
    f = [8 / (2 * len(weight)) * sum(row[e] > 0 for row in weight) for e in range(8)]
    naive = sum(f[e] * row[e] for row in weight for e in range(8)) / len(weight)
    loss = router.aux_losses["sparsity"]
    assert loss.compute(trace).item() == pytest.approx(0.5 * naive, rel=1e-5)
    assert (loss.weight, loss.layers) == (1.0, "mean")


@pytest.mark.parametrize(("mean", "expected"), [(2.0, 1.2e-8), (7.0, 1e-8 / 1.2)])
def test_the_factor_follows_the_excess(mean: float, expected: float) -> None:
    """About half of the experts run at the start: too many for 2, too few for 7."""
    router = built("remoe", {"mean_experts": mean})
    with torch.no_grad():
        router.after_step(traced(router))
    assert router.factor.item() == pytest.approx(expected, rel=1e-5)
    assert router.shift == 0


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_in_the_end_a_shift_holds_the_number_at_any_scale(scale: float) -> None:
    router = built("remoe", {"mean_experts": 1.5, "settled": 0.5})
    router.logits.weight.data.mul_(scale)
    taken = list[float]()
    for step in range(30):
        seen = inputs(seed=step, progress=0.5)
        trace = LayerTrace(1, router.paths, seen, plan(router, seen), seen.hidden, {})
        router.after_step(trace)
        taken.append(trace.plan.mask.sum(-1).float().mean().item())
    assert taken[0] > 3.0
    assert sum(taken[10:]) / 20 == pytest.approx(1.5, abs=0.08)
    assert router.factor.item() == pytest.approx(1e-8)


def test_the_penalty_makes_it_sparse() -> None:
    found = model("remoe", {"settled": 1.0})
    ids = tokens(8, 24)

    def taken() -> float:
        run = run_of(ids, "topk")
        with torch.no_grad():
            found.decoder(run)
        return sum(trace.plan.mask.sum(-1).float().mean().item() for trace in run.traces) / 3

    before = taken()
    fit(found, 150, adam_lr=0.002)
    assert before > 3.0
    assert 1.0 < taken() < 2.7
