"""Shares of a step: a clock that we move ourselves, and the step of a real model."""

import pytest
import torch
from torch import Tensor

from bench.backbone.layers import Attention
from bench.config.recipe import TrainConfig
from bench.speed import parts
from bench.training.loop import advance, begin
from bench.training.task import TrainTask
from tests import world

CPU = torch.device("cpu")


class Clock:
    now = 0.0


class Costly(torch.autograd.Function):
    """Add nothing, and take time: one unit forward, three backward."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        Clock.now += 1
        return x.clone()

    @staticmethod
    def backward(ctx, *gradients: Tensor):
        Clock.now += 3
        return gradients[0]


def test_forward_and_backward_time_go_to_the_part_that_made_the_node(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(parts.Stopwatch, "_now", lambda self: Clock.now)
    watch = parts.Stopwatch(CPU)
    inner = watch.wrapped(Costly.apply, "inner")
    outer = watch.wrapped(lambda x: Costly.apply(inner(Costly.apply(x))), "outer")
    x = torch.ones(2, requires_grad=True)
    loss = Costly.apply(outer(x) * 2).sum()
    watch.backward(Tensor.backward)(loss)
    watch.switch(parts.OTHER)
    assert watch.seconds == {"outer": 2 * (1 + 3), "inner": 1 + 3, parts.OTHER: 1 + 3}
    assert torch.equal(x.grad, torch.full((2,), 2.0))


def training(router: str):
    """Return a model and a call that does its next step and returns the loss."""
    model, recipe = world.model(router), TrainConfig(reference_tokens=1, batch_size=world.BATCH)
    begun = begin(model, TrainTask(world.split(), recipe, world.SEQ_LEN, seed=0))
    return model.decoder, lambda: float(advance(*begun, 0.5))


@pytest.mark.parametrize("router", ["mlp_gate", "mod", "top2_moe"])
def test_shares_add_up_to_one_and_change_no_loss(router: str):
    (_, step), (decoder, timed) = training(router), training(router)
    losses: list[float] = []
    before = Attention.__call__, Tensor.backward
    found = parts.shares(lambda: losses.append(timed()), decoder, 3)
    assert losses == [step() for _ in range(3)]
    assert (Attention.__call__, Tensor.backward) == before and "__call__" not in vars(Attention)
    assert "forward" not in vars(decoder.head)
    assert set(found) == {*parts.PARTS, parts.HEAD, parts.OTHER}
    assert sum(found.values()) == pytest.approx(1) and min(found.values()) > 0


def test_a_model_without_a_router_spends_nothing_on_one():
    decoder, step = training("dense_matched")
    assert parts.shares(step, decoder, 2)["router"] < 0.1
