"""Count what routers cost in use, and charge the largest count a token.

Routers are priced once before training. The meter asks them again under the counter, at steps of
training that follow from the seed and in every official evaluation. Where a token costs more than
the ledger says, the price of that site rises to the count, and everything charged from then on
pays it. Nothing is forbidden here: a router that works more is dearer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from bench.backbone.passes import Decide, ask
from bench.errors import RuleBroken
from bench.flops.counter import OpCounter, Sealed, UncountedOp
from bench.flops.ledger import Ledger
from bench.rng import key
from bench.routing.contract import Router, RouterInput, RoutingPlan, Selection

METERED = 0.02
"""Share of training steps under the counter; the first is one of them."""


class Meter:
    """Ask the routers of a model under the counter, and raise their prices to what is seen.

    Args:
        routers: of the model, in the order of the ledgers' sites.
        ledgers: the prices of training ("topk") and of evaluation ("causal").
        seed: of the cell; fixes the steps that are metered.
    """

    def __init__(
        self, routers: Sequence[Router], ledgers: Mapping[Selection, Ledger], seed: int
    ) -> None:
        self.seed, self.ledgers = seed, ledgers
        self.sites = {id(router): index for index, router in enumerate(routers)}

    def due(self, step: int) -> bool:
        """Return whether a step of training is metered.

        A function of seed and step, so that a resumed run meters the same steps.
        """
        return step == 0 or key(self.seed, "inspect", step) % 10_000 < METERED * 10_000

    def decide_at(self, step: int) -> Decide:
        """Return the way to a plan at a step of training."""
        return self.decide if self.due(step) else ask

    def decide(self, router: Router, inputs: RouterInput) -> RoutingPlan:
        """Ask the router under the counter, and raise its price if this plan cost more a token.

        Raises:
            RuleBroken: an operation has no price, or the plan is malformed.
        """
        where = f"Router of layer {router.spec.layer}, {inputs.selection} selection"
        try:
            with OpCounter() as counter, Sealed():
                plan = ask(router, inputs)
        except UncountedOp as error:
            raise RuleBroken(f"{where}: {error}") from None
        sites, index = self.ledgers[inputs.selection].sites, self.sites[id(router)]
        seen = counter.total / inputs.tokens.numel()
        if seen > sites[index].router:
            sites[index] = replace(sites[index], router=seen)
        check_plan(plan, inputs, len(router.paths.names), where)
        return plan


def check_plan(plan: RoutingPlan, inputs: RouterInput, num_paths: int, where: str) -> None:
    """Raise `RuleBroken` for a plan that dispatch or ledger cannot rely on."""
    fault = plan_fault(plan, (*inputs.tokens.shape, num_paths)) or counts_fault(plan)
    if fault is not None:
        raise RuleBroken(f"{where}: expected {fault[0]}; saw {fault[1]}.")


def plan_fault(plan: RoutingPlan, shape: tuple[int, ...]) -> tuple[str, str] | None:
    """Return what was expected of a plan and what was seen, or None if dispatch can rely on it.

    Args:
        plan: as a router returns it.
        shape: `(batch, seq, path)`.
    """
    mask, weight = plan.mask, plan.weight
    if tuple(mask.shape) != shape or mask.dtype is not torch.bool:
        return f"plan.mask torch.bool {shape}", f"{mask.dtype} {tuple(mask.shape)}"
    if weight is not None and tuple(weight.shape) != shape:
        return f"plan.weight of shape {shape}", str(tuple(weight.shape))
    if plan.merge is not None and bool((mask.sum(-1) != 1).any()):
        return "one path a token in plan.mask, as experts are merged", "none or several for some"
    return None


def counts_fault(plan: RoutingPlan) -> tuple[str, str] | None:
    """Return what was expected of the counts of a plan and what was seen, or None if they hold."""
    if plan.counts is None:
        return None
    seen = plan.mask.sum(1).unique(dim=0).tolist()
    if seen == [list(plan.counts)]:
        return None
    return f"a mask with plan.counts {plan.counts} in every sequence", f"{seen[:3]}"
