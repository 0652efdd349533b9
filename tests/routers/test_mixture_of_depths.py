"""Mixture-of-Depths against its definition, token by token."""

import torch

from tests.routers.asking import BATCH, SEQ, built, inputs, plan


def test_mod_weighs_the_whole_update_by_its_score() -> None:
    router = built("mod")
    seen = inputs()
    found = plan(router, seen)
    scores = (seen.hidden @ router.score.weight.detach().T).squeeze(-1)
    count = round(router.spec.capacity * SEQ)
    for b in range(BATCH):
        best = sorted(range(SEQ), key=lambda t: -scores[b, t].item())[:count]
        assert sorted(best) == found.mask[b, :, 1].nonzero().flatten().tolist()
    assert found.weight is not None
    torch.testing.assert_close(found.weight[..., 1], scores)
    assert torch.equal(found.mask[..., 0], ~found.mask[..., 1])
