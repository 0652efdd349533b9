"""Work in odd places that breaks no rule, because it is counted there and charged."""

import torch
from torch import Tensor

from bench.routing.contract import AuxLoss, LayerTrace, RouterInput, RouterSpec, RoutingPlan
from bench.routing.registry import register
from routers.gates import MLPGate

WIDTH = 128


class _Worker(MLPGate):
    """A gate with a large matrix to multiply by."""

    large: Tensor

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.register_buffer("large", torch.randn(spec.d_model, WIDTH))

    def work(self, hidden: Tensor) -> Tensor:
        return 1e-6 * (hidden @ self.large).tanh().mean()

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        plan = super().forward(inputs)
        assert plan.weight is not None
        plan.weight = plan.weight + self.extra(inputs)
        return plan

    def extra(self, inputs: RouterInput) -> Tensor | float:
        return 0.0


@register("paid_nothing", family="cheater")
class Nothing(_Worker):
    """Has the matrix and does not use it. The others are compared with it."""


@register("paid_plainly", family="cheater")
class Plainly(_Worker):
    """Multiplies in the open."""

    def extra(self, inputs: RouterInput) -> Tensor:
        return self.work(inputs.hidden)


@register("paid_elementwise", family="cheater")
class Elementwise(_Worker):
    """Writes the product as a sum of elementwise products."""

    def extra(self, inputs: RouterInput) -> Tensor:
        return 1e-6 * (inputs.hidden.unsqueeze(-1) * self.large).sum(-2).tanh().mean()


@register("paid_without_gradient", family="cheater")
class WithoutGradient(_Worker):
    """Multiplies where no gradient is kept."""

    @torch.no_grad()
    def extra(self, inputs: RouterInput) -> Tensor:
        return self.work(inputs.hidden)


@register("paid_after_step", family="cheater")
class AfterStep(_Worker):
    """Multiplies after each step."""

    def after_step(self, trace: LayerTrace) -> None:
        self.large += self.work(trace.inputs.hidden)


@register("paid_in_loss", family="cheater")
class InLoss(_Worker):
    """Multiplies in an auxiliary loss."""

    def __init__(self) -> None:
        super().__init__()
        self.aux_losses = {"extra": AuxLoss(lambda trace: self.work(trace.inputs.hidden), 1.0)}
