"""Hidden states that route themselves."""

import pytest
import torch

from tests.routers.asking import built, inputs, plan


def test_the_first_dimensions_are_the_logits() -> None:
    router = built("self_routing")
    assert not list(router.parameters())
    seen = inputs()
    found = plan(router, seen)
    p = seen.hidden[..., :8].softmax(-1)
    assert torch.equal(found.mask, p >= p.topk(2).values[..., -1:])
    assert found.weight is not None
    assert torch.allclose(found.weight.sum(-1), torch.ones(3, 24))


def test_more_experts_than_dimensions_are_refused() -> None:
    with pytest.raises(Exception, match="num_experts is 64; hidden states have 32 dimensions"):
        built("self_routing", {"num_experts": 64})
