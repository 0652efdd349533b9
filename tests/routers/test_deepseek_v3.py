"""DeepSeek-V3 against its equations, token by token."""

from typing import Any

import pytest
import torch

from bench.routing.contract import LayerTrace
from tests.routers.asking import built, inputs, plan
from tests.routing.test_token_choice import affinities


@pytest.mark.parametrize(("groups", "kept"), [(1, 1), (4, 2), (8, 3)])
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_it_chooses_by_affinity_and_bias_within_the_best_groups(
    groups: int, kept: int, scale: float
) -> None:
    """Equations 12 to 16 and node-limited routing, with 16 split experts, 4 active, 1 shared."""
    router = built("deepseek_v3", {"groups": groups, "groups_kept": kept, "scale": scale})
    bias = router.balancer.bias
    bias.copy_(torch.linspace(-0.1, 0.1, 16))
    seen = inputs()
    found = plan(router, seen)
    assert found.weight is not None
    logits = seen.hidden @ router.logits.weight.detach().T
    size = 16 // groups
    for mask, weight, row in zip(
        found.mask.flatten(0, 1).tolist(),
        found.weight.flatten(0, 1).tolist(),
        logits.flatten(0, 1).tolist(),
        strict=True,
    ):
        s = affinities(row, "sigmoid")
        wanted = [value + float(b) for value, b in zip(s, bias, strict=True)]
        strength = [
            sum(sorted(wanted[group * size : (group + 1) * size])[-2:]) for group in range(groups)
        ]
        best = sorted(range(groups), key=lambda group: -strength[group])[:kept]
        allowed = [e for group in best for e in range(group * size, (group + 1) * size)]
        chosen = sorted(allowed, key=lambda e: -wanted[e])[:4]
        total = sum(s[e] for e in chosen)
        assert mask == [True] + [e in chosen for e in range(16)]
        expected = [scale * s[e] / total if e in chosen else 0.0 for e in range(16)]
        assert weight == pytest.approx([1.0, *expected], abs=1e-5)


def test_its_balance_is_the_published_one() -> None:
    router = built("deepseek_v3")
    assert router.aux_losses["load_balance"].weight == 1e-4
    seen = inputs()
    trace = LayerTrace(1, router.paths, seen, plan(router, seen), seen.hidden, {})
    router.after_step(trace)
    load = trace.plan.mask[..., 1:].float().mean((0, 1))
    step = 0.001 * (load.mean() - load).sign()
    assert torch.allclose(router.balancer.bias, step - step.mean())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"groups": 3}, "groups is 3"),
        ({"groups": 8, "groups_kept": 1}, "groups_kept is 1"),
        ({"scale": 0.0}, "scale is 0.0"),
    ],
)
def test_a_bad_option_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(Exception, match=said):
        built("deepseek_v3", options)
