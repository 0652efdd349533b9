"""A router that is drawn and stays."""

import torch

from tests.routers.asking import inputs, plan
from tests.world import fit, model


def test_training_leaves_it_as_it_was_drawn() -> None:
    found, trained_too = model("frozen_router"), model("top2_moe", {"balance": "none"})
    frozen, learned = found.decoder.routers[0], trained_too.decoder.routers[0]
    assert torch.equal(frozen.logits.weight, learned.logits.weight)
    assert torch.equal(plan(frozen, inputs()).mask, plan(learned, inputs()).mask)
    drawn = frozen.logits.weight.clone()
    for built in (found, trained_too):
        fit(built, 5)
    assert torch.equal(frozen.logits.weight, drawn)
    assert not torch.equal(learned.logits.weight, drawn)
