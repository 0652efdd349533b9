"""Routers that behave while they are watched.

Under a counter, in a forward pass, in the small model of the checks.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils._python_dispatch import _get_current_dispatch_mode as get_current_dispatch_mode  # pyright: ignore[reportPrivateUsage]

from bench.routing.contract import AuxLoss, LayerTrace, RouterInput, RouterSpec, RoutingPlan
from bench.routing.registry import register
from routers.gates import MLPGate


class _Dear(torch.autograd.Function):
    """Identity forward; multiplies backward, if it `looks` only while no counter is about."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, hidden: Tensor, large: Tensor, looks: bool) -> Tensor:
        ctx.save_for_backward(hidden, large)
        ctx.looks = looks
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        hidden, large = ctx.saved_tensors
        if not (ctx.looks and get_current_dispatch_mode() is not None):
            for _ in range(20):
                hidden = 1e-3 * (hidden @ large @ large.mT)
        return gradient + 1e-9 * hidden.mean(), None, None, None


class _Large(MLPGate):
    """A gate with a large matrix, and a number that learns nothing but may be asked for its
    gradient.
    """

    large: Tensor

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.register_buffer("large", torch.randn(spec.d_model, 128))
        self.extra = nn.Parameter(torch.zeros(()))


@register("loss_when_unseen", family="cheater")
class LossWhenUnseen(_Large):
    """An auxiliary loss that multiplies only while no counter is about."""

    def __init__(self) -> None:
        super().__init__()
        self.aux_losses["extra"] = AuxLoss(self._loss, 1.0)

    def _loss(self, trace: LayerTrace) -> Tensor:
        hidden = trace.inputs.hidden
        return (
            0 * (hidden if get_current_dispatch_mode() is not None else hidden @ self.large).sum()
        )


@register("backward_when_unseen", family="cheater")
class BackwardWhenUnseen(_Large):
    """Multiplies backward only while no counter is about."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        plan = super().forward(inputs)
        assert plan.weight is not None
        plan.weight = plan.weight + 0 * _Dear.apply(
            self.extra, inputs.hidden.detach(), self.large, True
        )
        return plan


@register("backward_in_the_middle", family="cheater")
class BackwardInTheMiddle(_Large):
    """Multiplies backward while training is under way, and not at its end, where audits used to
    look.
    """

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        plan = super().forward(inputs)
        assert plan.weight is not None
        if inputs.progress < 1:
            plan.weight = plan.weight + 0 * _Dear.apply(
                self.extra, inputs.hidden.detach(), self.large, False
            )
        else:
            plan.weight = plan.weight + 0 * self.extra.clone()
        return plan


@register("backward_to_own_parameter", family="cheater")
class BackwardToOwnParameter(_Large):
    """An auxiliary loss whose gradient, dear to find, reaches a parameter of its own and no plan."""

    def __init__(self) -> None:
        super().__init__()
        self.aux_losses["extra"] = AuxLoss(self._loss, 1.0)

    def _loss(self, trace: LayerTrace) -> Tensor:
        return (
            _Dear.apply(self.extra, trace.inputs.hidden.detach(), self.large, False) - 1
        ).square()


@register("numbers_one_by_one", family="cheater")
class NumbersOneByOne(MLPGate):
    """Takes a hidden state out of torch, a number at a time, to compute with elsewhere."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        plan = super().forward(inputs)
        assert plan.weight is not None
        numbers = [value.item() for row in inputs.hidden.detach()[0, :16] for value in row]
        plan.weight = plan.weight + 1e-9 * sum(number * number for number in numbers)
        return plan


class _Busy(Tensor):
    """A tensor that multiplies while it is copied."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "_Busy":
        made = Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)  # pyright: ignore
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Tensor:
        hidden = args[0].inner
        return (hidden @ hidden.mT).mean(-1, keepdim=True)


@register("work_in_tensor_class", family="cheater")
class InTensorClass(MLPGate):
    """Works inside an operation of a tensor class of its own, where no counter is on."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        plan = super().forward(inputs)
        assert plan.weight is not None
        plan.weight = plan.weight + 0 * _Busy(inputs.hidden.detach()).clone()
        return plan


@register("trains_the_backbone", family="cheater")
class TrainsTheBackbone(MLPGate):
    """Walks the graph to weights that are not its own, and shrinks them."""

    def after_step(self, trace: LayerTrace) -> None:
        pending, seen = [trace.update.grad_fn], set[Any]()
        while pending:
            node = pending.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            if (variable := getattr(node, "variable", None)) is not None:
                variable.data.mul_(0.99)
            pending += [following for following, _ in node.next_functions]


@register("hook_on_every_optimiser", family="cheater")
class HookOnEveryOptimiser(MLPGate):
    """Has a word in every step of every optimiser of the process, those of other rows included."""

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        register_optimizer_step_pre_hook(lambda *_: None)
