"""Switch: the best expert of each token, weighed by its probability."""

import torch

from tests.routers.asking import built, inputs, plan


def test_a_token_takes_its_most_probable_expert_with_that_weight() -> None:
    router = built("top1_moe")
    seen = inputs()
    found = plan(router, seen)
    p = (seen.hidden @ router.logits.weight.detach().T).softmax(-1)
    assert found.weight is not None
    assert torch.equal(found.mask.int().argmax(-1), p.argmax(-1))
    assert found.mask.sum(-1).eq(1).all()
    assert torch.allclose(found.weight.amax(-1), p.amax(-1))
    assert router.aux_losses["load_balance"].weight == 0.01
    assert router.aux_losses["load_balance"].layers == "sum"
