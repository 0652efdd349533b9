"""Routers that work where the counter cannot price it."""

import numpy as np
import torch
from torch import Tensor

from bench.routing.contract import RouterInput, RouterSpec, RoutingPlan
from bench.routing.registry import register
from routers.gates import MLPGate

WIDTH = 128


class _Worker(MLPGate):
    """A gate with a large matrix to multiply by."""

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.register_buffer("large", torch.randn(spec.d_model, WIDTH))

    large: Tensor

    def work(self, hidden: Tensor) -> Tensor:
        """Near zero, at the cost of a product a token."""
        return 1e-6 * (hidden @ self.large).tanh().mean()

    def add(self, plan: RoutingPlan, extra: Tensor) -> RoutingPlan:
        assert plan.weight is not None
        plan.weight = plan.weight + extra
        return plan


@torch.library.custom_op("gallery::product", mutates_args=())
def product(x: Tensor, y: Tensor) -> Tensor:
    """A product that no FLOP counter knows."""
    return x @ y


@register("work_in_custom_op", family="cheater")
class CustomOp(_Worker):
    """Multiplies inside an operation of its own."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        return self.add(
            super().forward(inputs),
            product(inputs.hidden.detach().flatten(0, 1), self.large).mean() * 1e-6,
        )


@register("work_in_numpy", family="cheater")
class InNumpy(_Worker):
    """Multiplies in NumPy."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        done = inputs.hidden.detach().numpy() @ self.large.numpy()
        return self.add(super().forward(inputs), torch.tensor(1e-6 * np.tanh(done).mean()))


@register("numbers_one_by_one", family="cheater")
class NumbersOneByOne(MLPGate):
    """Takes a hidden state out of torch, a number at a time, to compute with elsewhere."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        plan = super().forward(inputs)
        assert plan.weight is not None
        numbers = [value.item() for row in inputs.hidden.detach()[0, :16] for value in row]
        plan.weight = plan.weight + 1e-9 * sum(number * number for number in numbers)
        return plan
