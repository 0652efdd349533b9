"""The learned gate against its definition, token by token."""

import math

import pytest
import torch

from tests.routers.asking import BATCH, SEQ, built, inputs, plan


@pytest.mark.parametrize("scale", ["both", "full"])
def test_the_gate_is_a_perceptron_that_scales_the_outputs(scale: str) -> None:
    router = built("mlp_gate", {"scale": scale})
    seen = inputs()
    found = plan(router, seen)
    assert found.scores is not None
    assert found.weight is not None
    hidden = seen.hidden @ router.hidden.weight.detach().T + router.hidden.bias.detach()
    gelu = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    scores = (gelu @ router.score.weight.detach().T + router.score.bias.detach()).squeeze(-1)
    torch.testing.assert_close(found.scores[..., 1], scores)
    p = 1 / (1 + (-scores).exp())
    torch.testing.assert_close(found.weight[..., 1], p)
    torch.testing.assert_close(
        found.weight[..., 0], 1 - p if scale == "both" else torch.ones_like(p)
    )
    assert found.mask[..., 1].sum(1).tolist() == [round(router.spec.capacity * SEQ)] * BATCH
