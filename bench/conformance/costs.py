"""Checks that the ledger charges what is executed, whoever looks, and that dispatch computes what
the plans say.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.backbone.passes import Pass, ask
from bench.conformance.audit import Line, audit
from bench.conformance.check import Exempt, demand, rule
from bench.conformance.plans import SELECTIONS
from bench.conformance.prices import BACKWARD_TOLERANCE, STEPS
from bench.conformance.state import plan_digest
from bench.conformance.subject import BATCH_SIZE, SEQ_LEN, Subject
from bench.evaluation.evaluate import evaluate
from bench.flops.counter import OpCounter
from bench.flops.ledger import Ledger
from bench.flops.meter import PRICE_TOLERANCE
from bench.flops.unseen import unseen_operations
from bench.model.assemble import Model
from bench.rng import generator
from bench.routing.contract import Router, RouterInput, RoutingPlan, Selection

REFERENCE_TOLERANCE = 1e-5


@rule(
    "Do not look for counters, modes or profilers: the plan and the work must be those of the run."
)
def same_when_audited(subject: Subject) -> None:
    """A counter changes neither a router's plan nor any operation that is run.

    Deciding, in losses, and in a whole training step.
    """
    for selection in SELECTIONS:
        for router, inputs in zip(
            subject.trained.decoder.routers,
            subject.inputs(selection, model=subject.trained),
            strict=True,
        ):
            where = f"in layer {router.spec.layer}, {selection}"
            with OpCounter():
                audited = plan_digest(router, subject.fresh(inputs))
            demand(
                audited == plan_digest(router, subject.fresh(inputs)),
                f"the same plan with and without a counter {where}",
                "another plan",
            )
            _demand_seen(lambda: plan_digest(router, subject.fresh(inputs)), where)  # noqa: B023
    models = [subject.assemble() for _ in range(3)]
    _demand_seen(
        lambda: subject.train(models.pop(), steps=1), "in a training step", products_only=True
    )


def _demand_seen(run: Callable[[], object], where: str, products_only: bool = False) -> None:
    differ = unseen_operations(run, products_only)
    demand(
        not differ,
        f"the operations that a counter sees {where}",
        f"without one, others of {', '.join(differ[:3])}",
    )


@rule(
    "Leave plans alone once they are made, whether one's own, or `previous`: losses, metrics and labels read them afterwards."
)
def charged_as_executed(subject: Subject) -> None:
    """What the ledger charges for paths is what the plans said when they were executed, and still
    say when the step is over.
    """
    model = subject.assemble()
    made: list[list[_Made]] = [[] for _ in model.decoder.routers]
    with _keeping(model, made):
        subject.train(model, steps=STEPS)
        trained = [
            [plan.then for plan in plans if plan.gradient] for plans in made
        ]  # passes without are those of an oracle
        _compare(_paths(model.ledger, trained), model.ledger.spent["paths/forward"], "in training")
        _demand_unchanged(made)
        for plans in made:
            plans.clear()
        found = evaluate(model, subject.windows(BATCH_SIZE), batch_size=BATCH_SIZE)
    tokens, ledger = BATCH_SIZE * SEQ_LEN, model.evaluation_ledger
    evaluated = [[plan.then for plan in plans] for plans in made]
    _compare(
        _paths(ledger, evaluated),
        (found.active - ledger.fixed - ledger.routers) * tokens,
        "in evaluation",
    )
    _demand_unchanged(made)


@dataclass(frozen=True)
class _Made:
    """A mask, what it said when it was made, and whether in a pass with gradient."""

    mask: Tensor
    then: Tensor
    gradient: bool


def _demand_unchanged(made: list[list[_Made]]) -> None:
    for plans in made:
        demand(
            all(torch.equal(plan.mask, plan.then) for plan in plans),
            "plans as they were made",
            "a mask that was changed afterwards",
        )


@contextmanager
def _keeping(model: Model, made: list[list[_Made]]) -> Generator[None]:
    """Copy the mask of each plan the moment it is made."""

    def keeper(kept: list[_Made]) -> Callable[[Any, Any, Any], None]:
        return lambda _router, _inputs, plan: kept.append(
            _Made(plan.mask, plan.mask.clone(), torch.is_grad_enabled())
        )

    handles = [
        router.register_forward_hook(keeper(kept))
        for router, kept in zip(model.decoder.routers, made, strict=True)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _paths(ledger: Ledger, masks: list[list[Tensor]]) -> float:
    return sum(
        site.active(mask.sum(1))
        for site, kept in zip(ledger.sites, masks, strict=True)
        for mask in kept
    )


def _compare(executed: float, charged: float, where: str) -> None:
    demand(
        abs(executed - charged) <= 1e-6 * executed + 1,
        f"{executed:,.0f} FLOPs charged for paths {where}",
        f"{charged:,.0f}",
    )


@rule(
    "Leave the backward pass to autograd: one of one's own may cost no more than twice the forward pass, which is what is charged."
)
def ledger_equals_audit(subject: Subject) -> None:
    """A training step and an evaluation, counted operation by operation, cost what the ledger says
    of each component.
    """
    draw = torch.rand(2, generator=generator(subject.seed, "progress")).tolist()
    for progress in (0.0, *draw, 1.0):
        _hold_to_ledger(audit(subject.trained, *subject.batch(4, seq_len=SEQ_LEN + 1), progress))


def _hold_to_ledger(counted: dict[Selection, list[Line]]) -> None:
    for selection, lines in counted.items():
        for line in lines:
            # Paths and backbone are exact. A router's elementwise work is priced by formula,
            # backward only as a bound.
            slack = (
                0.0
                if line.component != "router"
                else PRICE_TOLERANCE
                if line.phase == "forward"
                else BACKWARD_TOLERANCE
            )
            over = line.counted > line.ledger * (1 + slack) + 1
            under = line.phase == "forward" and line.counted < line.ledger * (1 - slack) - 1
            expected = f"{line.ledger:,.0f} FLOPs {line.phase} for {line.component} in {selection}"
            demand(not over and not under, expected, f"{line.counted:,.0f} counted")


@rule(
    "The dispatcher relies on mask, weight and counts agreeing: see counts_match_mask, and keep weights finite."
)
def sparse_equals_reference(subject: Subject) -> None:
    """Running each path on its own tokens gives the outputs and gradients of running all of them
    everywhere and masking.
    """
    if subject.is_bracket:
        raise Exempt("a bracket has one path")
    for selection in SELECTIONS:
        plans: list[RoutingPlan] = []

        def record(
            router: Router, inputs: RouterInput, kept: list[RoutingPlan] = plans
        ) -> RoutingPlan:
            kept.append(ask(router, inputs))
            return kept[-1]

        def replay(
            router: Router, inputs: RouterInput, kept: list[RoutingPlan] = plans
        ) -> RoutingPlan:
            del router, inputs
            return kept.pop(0)

        with torch.no_grad():
            subject.run(subject.trained, *subject.batch(4), selection, decide=record)
        again = list(plans)
        sparse = _outputs_and_gradients(subject.trained, subject.run_of(selection, decide=replay))
        plans.extend(again)
        dense = _outputs_and_gradients(
            subject.trained, subject.run_of(selection, decide=replay, reference=True)
        )
        for name, value in sparse.items():
            error = float(
                (value - dense[name]).abs().max() / dense[name].abs().max().clamp_min(1e-6)
            )
            demand(
                error <= REFERENCE_TOLERANCE,
                f"{name} to {REFERENCE_TOLERANCE:g} relative, {selection}",
                f"{error:.2g}",
            )


def _outputs_and_gradients(model: Model, run: Pass) -> dict[str, Tensor]:
    """Logits, and the gradients of their mean square in every parameter but the routers', whose
    plans are replayed.
    """
    model.decoder.zero_grad(set_to_none=True)
    logits = model.decoder(run)
    logits.square().mean().backward()
    found = {
        name: parameter.grad
        for name, parameter in model.decoder.named_parameters()
        if parameter.grad is not None
    }
    model.decoder.zero_grad(set_to_none=True)
    return {
        "logits": logits.detach(),
        **{f"gradient of {name}": gradient for name, gradient in found.items()},
    }
