"""The plain loop trains the dense row, loss for loss: both times measure the same work."""

import pytest
import torch

from bench.config.recipe import TrainConfig
from bench.speed.plain import plain_step
from bench.training.loop import advance, begin
from bench.training.task import TrainTask
from tests import world


@pytest.mark.parametrize("qk_gain", [False, True])
def test_the_plain_loop_has_the_losses_of_the_dense_row(qk_gain: bool):
    config = world.DecoderConfig(**(vars(world.CONFIG) | {"qk_gain": qk_gain}))
    model = world.model("dense", decoder=config)
    recipe = TrainConfig(reference_tokens=1, batch_size=world.BATCH, adam_lr=0.05, muon_lr=0.05)
    step = plain_step(model.decoder, recipe, torch.float32)
    loop, order = begin(model, TrainTask(world.split(), recipe, world.SEQ_LEN, seed=0))
    batches = [torch.from_numpy(order.batch(count, 0.5).tokens) for count in range(4)]
    losses = [float(advance(loop, order, 0.5)) for _ in batches]
    assert [float(step(batch)) for batch in batches] == pytest.approx(losses, rel=1e-5)
    # Something was learned, so the optimisers are compared too.
    assert losses[-1] < losses[0] - 0.1
