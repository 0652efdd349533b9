"""Check that routers and auxiliary losses cost in every call of the run what they were priced at."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from unittest import mock

import torch
from torch import Tensor

from bench.conformance.check import demand, rule
from bench.conformance.subject import Subject
from bench.evaluation.calibrate import calibrate
from bench.evaluation.evaluate import evaluate
from bench.flops.counter import OpCounter, Sealed
from bench.flops.meter import PRICE_TOLERANCE
from bench.routing.contract import AuxLoss, LayerTrace, Router, RouterInput, RoutingPlan

BACKWARD_TOLERANCE = 0.5
STEPS = 4


@rule(
    "Do the same work whenever called: no caches, no warm-up, no look at batch size, progress or whether anyone counts."
)
def price_holds(subject: Subject) -> None:
    """Through training and evaluation no router and no auxiliary loss costs more than it was priced
    at.
    """
    model = subject.assemble()
    prices = {"topk": model.ledger, "causal": model.evaluation_ledger}
    seen: dict[tuple[int, str], float] = {}
    with (
        _counting(model.decoder.routers, seen),
        _counting_losses(model.decoder.routers) as (losses, backward),
    ):
        subject.train(model, steps=STEPS)
        calibrate(model, subject.windows(8), 1.0)
        evaluate(model, subject.windows(8, "validation"), batch_size=4)
    for (index, selection), dearest in seen.items():
        price = prices[selection].sites[index].router
        expected = f"{price:,.0f} FLOPs a token in {selection}, as priced before the run"
        demand(
            dearest <= price * (1 + PRICE_TOLERANCE) + 1,
            expected,
            f"{dearest:,.0f} at site {index}",
        )
    for name, calls in losses.items():
        demand(
            max(calls) <= calls[0] * (1 + PRICE_TOLERANCE),
            f"{calls[0]:,.0f} FLOPs in each call of loss {name!r}",
            f"{max(calls):,.0f}",
        )
        most, dearest = 2 * (1 + BACKWARD_TOLERANCE) * calls[0] + 1, max(backward.get(name, [0.0]))
        demand(
            dearest <= most,
            f"at most {most:,.0f} FLOPs in the backward pass of loss {name!r}",
            f"{dearest:,.0f}",
        )


@contextmanager
def _counting(routers: list[Router], seen: dict[tuple[int, str], float]) -> Generator[None]:
    """Note for each router and selection the most that a token cost in any call."""

    def counted(
        index: int, forward: Callable[[RouterInput], RoutingPlan]
    ) -> Callable[[RouterInput], RoutingPlan]:
        def call(inputs: RouterInput) -> RoutingPlan:
            with OpCounter() as counter, Sealed():
                plan = forward(inputs)
            place = index, inputs.selection
            seen[place] = max(seen.get(place, 0.0), counter.total / inputs.tokens.numel())
            return plan

        return call

    patches = [
        mock.patch.object(router, "forward", counted(index, router.forward))
        for index, router in enumerate(routers)
    ]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


@contextmanager
def _counting_losses(
    routers: list[Router],
) -> Generator[tuple[dict[str, list[float]], dict[str, list[float]]]]:
    """Note what each call of an auxiliary loss costs, forward and back to the plan and to
    parameters, by name and layer, in order.
    """
    seen: dict[str, list[float]] = {}
    backward: dict[str, list[float]] = {}

    def counted(name: str, loss: AuxLoss, router: Router) -> AuxLoss:
        def compute(trace: LayerTrace) -> Tensor:
            with OpCounter() as counter, Sealed():
                value = loss.compute(trace)
            seen.setdefault(name, []).append(counter.total)
            apart, given = _cut_off(trace.plan)
            given += router.parameters()
            again = loss.compute(replace(trace, plan=apart))
            if again.requires_grad:
                with OpCounter() as counter:
                    torch.autograd.grad(again, given, allow_unused=True)
                backward.setdefault(name, []).append(counter.total)
            return value

        return replace(loss, compute=compute)

    before = [router.aux_losses for router in routers]
    for router in routers:
        router.aux_losses = {
            name: counted(f"{name} of layer {router.spec.layer}", loss, router)
            for name, loss in router.aux_losses.items()
        }
    try:
        yield seen, backward
    finally:
        for router, losses in zip(routers, before, strict=True):
            router.aux_losses = losses


def _cut_off(plan: RoutingPlan) -> tuple[RoutingPlan, list[Tensor]]:
    """The plan without the graph that made it, so that a backward pass ends there, and its tensors
    that would pass a gradient on.
    """
    given: list[Tensor] = []

    def leaf(tensor: Tensor | None) -> Tensor | None:
        if tensor is None or not tensor.requires_grad:
            return tensor
        given.append(tensor.detach().requires_grad_())
        return given[-1]

    extras = {name: leaf(tensor) for name, tensor in plan.extras.items()}
    return replace(
        plan,
        scores=leaf(plan.scores),
        weight=leaf(plan.weight),
        merge=leaf(plan.merge),
        extras=extras,
    ), given
