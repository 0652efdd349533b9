"""GShard against its definition, token by token."""

import pytest
import torch

from bench.routing.contract import LayerTrace
from tests.routers.asking import BATCH, SEQ, built, inputs, plan
from tests.routing.test_token_choice import affinities


@pytest.mark.parametrize("renormalise", [True, False])
def test_top2_takes_the_two_most_probable(renormalise: bool) -> None:
    router = built("top2_moe", {"renormalise": renormalise})
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
        p = affinities(row, "softmax")
        best = sorted(range(8), key=lambda e: -p[e])[:2]
        assert [e for e in range(8) if mask[e]] == sorted(best)
        total = sum(p[e] for e in best) if renormalise else 1.0
        assert weight == pytest.approx(
            [p[e] / total if e in best else 0 for e in range(8)], abs=1e-6
        )


def test_the_loss_of_gshard_counts_the_first_choice_alone() -> None:
    """Algorithm 1: the sum over e of (c_e / S) m_e, times E as in Switch; c_e counts the first."""
    router = built("top2_moe", {"first_choices": True})
    seen = inputs()
    trace = LayerTrace(1, router.paths, seen, plan(router, seen), seen.hidden, {})
    p = (seen.hidden @ router.logits.weight.detach().T).softmax(-1).flatten(0, 1)
    counts = [0] * 8
    for row in p.tolist():
        counts[row.index(max(row))] += 1
    naive = sum(c / len(p) * m for c, m in zip(counts, p.mean(0).tolist(), strict=True)) * 8
    assert router.aux_losses["load_balance"].compute(trace).item() == pytest.approx(naive)
    both = built("top2_moe").aux_losses["load_balance"]
    assert both.compute(trace).item() != pytest.approx(naive, abs=1e-4)


@pytest.mark.parametrize("num_shared", [0, 1])
def test_the_second_expert_runs_with_twice_its_weight_as_probability(num_shared: int) -> None:
    router = built("top2_moe", {"random_second": True, "num_shared": num_shared})
    whole = plan(router, inputs("causal"))
    assert whole.weight is not None
    second = (whole.weight * whole.mask)[..., num_shared:].topk(2).values[..., 1]
    ran = torch.zeros(BATCH, SEQ)
    for seed in range(400):
        seen = inputs(seed=0)
        assert seen.generator is not None
        seen.generator.manual_seed(seed)
        found = plan(router, seen)
        assert found.choice is not None
        assert torch.equal(found.choice, whole.mask)
        assert (found.mask & ~whole.mask).sum() == 0
        ran += found.mask[..., num_shared:].sum(-1) - 1
    assert (ran >= 0).all()
    assert torch.allclose(ran / 400, (2 * second).clamp_max(1), atol=0.12)
    assert whole.mask[..., num_shared:].sum(-1).eq(2).all()
