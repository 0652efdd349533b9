"""One training step of a router, against the optimiser written out."""

from typing import Any

import pytest
import torch
from torch import Tensor

from bench.config.recipe import TrainConfig
from bench.training.optim import trapezoid
from bench.training.step import Stepper
from bench.training.task import TrainTask
from tests.world import SEQ_LEN, equipped, fit, model, split

STEPS = 3


@pytest.mark.parametrize(
    "training",
    [
        {},
        {"lr_ratio": 0.25},
        {"clip": 1e-4},
        {"weight_decay": 2.0},
        {"lr_ratio": 3.0, "weight_decay": 1.0},
    ],
)
def test_a_step_of_a_router_is_adamw_written_out(training: dict[str, Any]) -> None:
    """From the gradients that reached its parameters.

    Clipped as one, then Adam with decoupled decay, in plain numbers.
    """
    found = equipped("mlp_gate")
    router = found.decoder.routers[0]
    parameters = list(router.parameters())
    start = [p.detach().double().clone() for p in parameters]
    gradients: list[list[Tensor]] = [[] for _ in parameters]
    for parameter, seen in zip(parameters, gradients, strict=True):
        parameter.register_post_accumulate_grad_hook(
            lambda p, seen=seen: seen.append(p.grad.double().clone())
        )  # type: ignore[union-attr]
    fit(found, STEPS, router=training, adam_lr=0.002, decay=0.0)
    rate, decay = 0.002 * training.get("lr_ratio", 1.0), training.get("weight_decay", 0.0)
    first, second = ([torch.zeros_like(p) for p in start] for _ in range(2))
    for step in range(STEPS):
        raw = [seen[step] for seen in gradients]
        norm = torch.stack([g.square().sum() for g in raw]).sum().sqrt()
        factor = min(1.0, training["clip"] / (norm.item() + 1e-6)) if "clip" in training else 1.0
        lr = rate * trapezoid(step / STEPS, 0.0, 0.0)
        for index, gradient in enumerate(raw):
            g = gradient * factor
            first[index] = 0.9 * first[index] + 0.1 * g
            second[index] = 0.95 * second[index] + 0.05 * g**2
            corrected = (
                first[index]
                / (1 - 0.9 ** (step + 1))
                / ((second[index] / (1 - 0.95 ** (step + 1))).sqrt() + 1e-8)
            )
            start[index] = start[index] * (1 - lr * decay) - lr * corrected
    for parameter, expected in zip(parameters, start, strict=True):
        assert torch.allclose(parameter.double(), expected, atol=1e-6)


def test_a_restored_state_is_on_the_device_of_the_model() -> None:
    """A checkpoint is read on the CPU. The device `meta` stands for a GPU."""
    task = TrainTask(split(), TrainConfig(reference_tokens=1), SEQ_LEN, seed=0)
    loop = Stepper(model("top2_moe"), task)
    loop.since = [torch.tensor(2.0), torch.tensor(3.0)]
    state = loop.state_dict()
    loop.device = torch.device("meta")
    loop.load_state_dict(state)
    assert {loss.device.type for loss in loop.since} == {"meta"}
