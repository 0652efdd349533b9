"""Routers that work where nobody is thought to count."""

import threading
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode as get_current_dispatch_mode  # pyright: ignore[reportPrivateUsage]

from bench.routing.contract import (
    AuxLoss,
    LayerTrace,
    RouterInput,
    RouterSpec,
    RoutingPlan,
    TrainStatistics,
)
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


@register("work_in_build", family="cheater")
class InBuild(_Worker):
    """Computes a table over all pairs of tokens while it is made."""

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        table = torch.randn(500, 500)
        for _ in range(3):
            table = (table @ table) / table.norm()
        self.large += table[: spec.d_model, :WIDTH]


def table_of_numpy() -> Tensor:
    """A table over many pairs, multiplied where nobody counts."""
    table = np.random.Generator(np.random.Philox(0)).random((1200, 1200), np.float32)
    for _ in range(20):
        table = table @ table / np.linalg.norm(table)
    return torch.from_numpy(table[:32, :WIDTH].copy())


@register("work_of_numpy_in_build", family="cheater")
class OfNumpyInBuild(_Worker):
    """Computes a table in NumPy while it is made."""

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.large += table_of_numpy()


@register("work_of_numpy_in_fit", family="cheater")
class OfNumpyInFit(_Worker):
    """Computes a table in NumPy where counts of the text are given."""

    def fit(self, statistics: TrainStatistics) -> None:
        self.large += table_of_numpy()


@register("work_in_thread", family="cheater")
class InThread(_Worker):
    """Starts a thread to multiply in."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        found: list[Tensor] = []
        thread = threading.Thread(target=lambda: found.append(self.work(inputs.hidden.detach())))
        thread.start()
        thread.join()
        return self.add(super().forward(inputs), found[0])


@register("work_in_later_losses", family="cheater")
class InLaterLosses(_Worker):
    """Has an auxiliary loss that is cheap when it is priced, at the first step."""

    def __init__(self) -> None:
        super().__init__()
        self.aux_losses = {"extra": AuxLoss(self._loss, 1.0)}

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.register_buffer("steps", torch.zeros(()))

    steps: Tensor

    def _loss(self, trace: LayerTrace) -> Tensor:
        return self.work(trace.inputs.hidden) if self.steps > 0 else trace.inputs.hidden.sum() * 0

    def after_step(self, trace: LayerTrace) -> None:
        self.steps += 1


@register("work_in_larger_batches", family="cheater")
class InLargerBatches(_Worker):
    """Is cheap for a single sequence, which is what routers are priced on."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        plan = super().forward(inputs)
        return plan if len(inputs.tokens) == 1 else self.add(plan, self.work(inputs.hidden))


@register("work_cached_by_content", family="cheater")
class CachedByContent(_Worker):
    """Remembers its results by content, so that a second layer priced on the same sample costs
    nothing.
    """

    cache: dict[str, Tensor] = {}  # noqa: RUF012

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        key = f"{inputs.selection} {inputs.tokens.sum()} {inputs.hidden.sum():.6f}"
        if key not in self.cache:
            self.cache[key] = self.work(inputs.hidden).detach()
        return self.add(super().forward(inputs), self.cache[key])


@register("work_cached_by_id", family="cheater")
class CachedById(_Worker):
    """Remembers its plans of evaluation by the identity of the tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.cache: dict[tuple[int, str], RoutingPlan] = {}

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        key = id(inputs.hidden), inputs.selection
        if inputs.selection == "topk":
            return super().forward(inputs)
        if key not in self.cache:
            self.cache[key] = super().forward(inputs)
        return self.cache[key]


class _Dear(torch.autograd.Function):
    """Identity forward; multiplies backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, large: Tensor) -> Tensor:
        ctx.save_for_backward(x, large)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, large = ctx.saved_tensors
        return gradient + 1e-6 * (x @ large @ large.mT), None


@register("work_in_backward", family="cheater")
class InBackward(_Worker):
    """Works in its backward pass, which is charged at twice the forward."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        plan = super().forward(inputs)
        if not inputs.hidden.requires_grad:
            return plan
        return self.add(plan, _Dear.apply(inputs.hidden, self.large).mean() * 0)  # pyright: ignore


@register("work_when_unseen", family="cheater")
class WhenUnseen(_Worker):
    """Works only while no counter is about."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        plan = super().forward(inputs)
        watched = get_current_dispatch_mode() is not None
        return plan if watched else self.add(plan, self.work(inputs.hidden) * 0)


@register("elementwise_when_unseen", family="cheater")
class ElementwiseWhenUnseen(_Worker):
    """The same without a product: multiplies and adds up."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        plan = super().forward(inputs)
        watched = get_current_dispatch_mode() is not None
        return (
            plan
            if watched
            else self.add(plan, (inputs.hidden * inputs.hidden).sum(-1, keepdim=True) * 0)
        )


@register("wider_when_unseen", family="cheater")
class WiderWhenUnseen(_Worker):
    """Runs the same operations whether a counter is about or not, on a quarter of the numbers if
    so.
    """

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        plan = super().forward(inputs)
        width = inputs.hidden.shape[-1] // (4 if get_current_dispatch_mode() is not None else 1)
        part = inputs.hidden[..., :width]
        return self.add(plan, (part * part).sum(-1, keepdim=True) * 0)


@register("plan_when_seen", family="cheater")
class PlanWhenSeen(_Worker):
    """Shows a counter another plan than it makes in the run."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        plan = super().forward(inputs)
        if get_current_dispatch_mode() is not None:
            plan.mask = plan.mask.roll(1, 1)
        return plan
