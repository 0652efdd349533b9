"""The ledger charges plans as they were made, whatever happens to them later."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.config.recipe import TrainConfig
from bench.evaluation.evaluate import Evaluation, evaluate
from bench.flops.ledger import Ledger
from bench.model.assemble import Model, assemble
from bench.routing.capacity import gate_plan
from bench.routing.contract import AuxLoss, LayerTrace, Router, RouterInput, RouterSpec, RoutingPlan
from bench.routing.paths import FFN_GATE
from bench.routing.registry import Entry
from bench.training.loop import train
from bench.training.task import Allowance, TrainTask
from tests.world import ROWS, SEQ_LEN, blueprint, model, row_id, split, windows

RECIPE = TrainConfig(reference_tokens=1, batch_size=3)
STEPS = 2


def fit(found: Model) -> None:
    allowance = Allowance(math.inf, STEPS * RECIPE.batch_size * SEQ_LEN)
    train(found, TrainTask(split(), RECIPE, SEQ_LEN, seed=0), allowance)


def booked(found: Model) -> list[list[Tensor]]:
    """A copy of each mask the moment it is made, in passes with gradient or evaluation, by site."""
    made: list[list[Tensor]] = [[] for _ in found.decoder.routers]

    def keeper(kept: list[Tensor]) -> Callable[..., None]:
        def keep(_router: Router, given: tuple[RouterInput], plan: RoutingPlan) -> None:
            # Passes of training without a gradient are forks of an oracle, charged elsewhere.
            if given[0].selection == "causal" or torch.is_grad_enabled():
                kept.append(plan.mask.clone())

        return keep

    for router, kept in zip(found.decoder.routers, made, strict=True):
        router.register_forward_hook(keeper(kept))
    return made


def cost(ledger: Ledger, made: list[list[Tensor]]) -> float:
    found = sum(
        site.active(mask.sum(1))
        for site, kept in zip(ledger.sites, made, strict=True)
        for mask in kept
    )
    for kept in made:
        kept.clear()
    return found


@pytest.mark.parametrize(("name", "options"), ROWS, ids=row_id)
def test_paths_are_charged_as_planned(name: str, options: Mapping[str, Any]) -> None:
    found = model(name, options)
    made = booked(found)
    fit(found)
    assert found.ledger.spent["paths/forward"] == pytest.approx(cost(found.ledger, made), rel=1e-9)
    ledger, seen = found.evaluation_ledger, evaluate(found, windows(), batch_size=4)
    paths = (seen.active - ledger.fixed - ledger.routers) * windows().tokens[:, 1:].size
    assert paths == pytest.approx(cost(ledger, made), rel=1e-6)


class Gate(Router):
    """Every other token takes the full path."""

    paths = FFN_GATE

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.made: list[Tensor] = []

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        plan = gate_plan(inputs.positions % 2 == 0, None)
        self.made.append(plan.mask)
        return plan


class ClearsItsMask(Gate):
    """Writes to the mask it returned once the next pass begins."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        for mask in self.made:
            mask.zero_()
        return super().forward(inputs)


class ClearsInLoss(Gate):
    def __init__(self) -> None:
        super().__init__()
        self.aux_losses["clears"] = AuxLoss(self.clear, 1.0)

    def clear(self, trace: LayerTrace) -> Tensor:
        trace.plan.mask.zero_()
        return trace.update.sum() * 0


class ClearsAfterStep(Gate):
    def after_step(self, trace: LayerTrace) -> None:
        trace.plan.mask.zero_()


def lived(router: type[Router]) -> tuple[float, Evaluation]:
    found = assemble(replace(blueprint("mlp_gate"), entry=Entry("x", "gate", "", router)), 0)
    fit(found)
    return found.ledger.spent["paths/forward"], evaluate(found, windows(), 4, keep=True)


@pytest.mark.parametrize("router", [ClearsItsMask, ClearsInLoss, ClearsAfterStep])
def test_a_mask_that_is_rewritten_later_changes_no_charge_and_no_measure(
    router: type[Router],
) -> None:
    (spent, seen), (plainly, plain) = lived(router), lived(Gate)
    assert spent == plainly > 0
    assert seen.active == plain.active
    assert all(torch.equal(mask, plain.masks[site]) for site, mask in seen.masks.items())
