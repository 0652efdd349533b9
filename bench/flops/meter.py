"""Meter routers in use, and charge the largest count per token.

Routers are priced once before training. The meter runs them again under the counter, at training
steps chosen by the seed and in every official evaluation. If a token costs more than its price in
the ledger, the price of that site rises to the count for all later charges. Nothing is forbidden
here: a router that works more pays more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from bench.backbone.passes import Decide, ask
from bench.errors import RuleBroken
from bench.flops.counter import OpCounter, Sealed, UncountedOp
from bench.flops.ledger import Ledger
from bench.ranks import total
from bench.rng import key
from bench.routing.contract import Router, RouterInput, RoutingPlan, Selection

METERED = 0.02
"""Share of training steps under the counter. The first step is always one of them."""


class Meter:
    """Run the routers of a model under the counter, and raise their prices to the counts.

    Args:
        routers: routers of the model, in the order of the ledgers' sites.
        ledgers: the prices of training ("topk") and of evaluation ("causal").
        seed: seed of the cell; it fixes the metered steps.
    """

    def __init__(
        self, routers: Sequence[Router], ledgers: Mapping[Selection, Ledger], seed: int
    ) -> None:
        self.seed, self.ledgers = seed, ledgers
        self.sites = {id(router): index for index, router in enumerate(routers)}

    def due(self, step: int) -> bool:
        """Return whether a training step is metered.

        It depends on seed and step alone, so that a resumed run meters the same steps.
        """
        return step == 0 or key(self.seed, "inspect", step) % 10_000 < METERED * 10_000

    def decide_at(self, step: int) -> Decide:
        """Return the function that asks for a plan at a training step: metered or plain."""
        return self.decide if self.due(step) else ask

    def decide(self, router: Router, inputs: RouterInput) -> RoutingPlan:
        """Ask the router under the counter, and raise its price if this plan cost more per token.

        Raises:
            RuleBroken: an operation has no price, or the plan is malformed.
        """
        where = f"Router of layer {router.spec.layer}, {inputs.selection} selection"
        try:
            with OpCounter() as counter, Sealed():
                plan = ask(router, inputs)
        except UncountedOp as error:
            raise RuleBroken(f"{where}: {error}") from None
        # Training and evaluation have their own prices.
        sites, index = self.ledgers[inputs.selection].sites, self.sites[id(router)]
        # The batch is empty where a block takes no token.
        seen = total(counter.total) / max(1, total(inputs.tokens.numel()))
        # The price never falls, so that one cheap plan hides no dear one.
        if seen > sites[index].router:
            sites[index] = replace(sites[index], router=seen)
        check_plan(plan, inputs, len(router.paths.names), where)
        return plan


def check_plan(plan: RoutingPlan, inputs: RouterInput, num_paths: int, where: str) -> None:
    """Raise `RuleBroken` for a plan that dispatch or ledger cannot use."""
    fault = plan_fault(plan, (*inputs.tokens.shape, num_paths)) or counts_fault(plan)
    if fault is not None:
        raise RuleBroken(f"{where}: expected {fault[0]}; saw {fault[1]}.")


def plan_fault(plan: RoutingPlan, shape: tuple[int, ...]) -> tuple[str, str] | None:
    """Return the expected and the seen form of a malformed plan, or None if the plan is sound.

    Args:
        plan: the plan of a router.
        shape: the required shape, `(batch, seq, path)`.
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
    """Return the expected and the seen counts of a plan, or None if they agree with the mask."""
    if plan.counts is None:
        return None
    # All sequences must have the same counts, those of the plan.
    seen = plan.mask.sum(1).unique(dim=0).tolist()
    if seen == [list(plan.counts)]:
        return None
    return f"a mask with plan.counts {plan.counts} in every sequence", f"{seen[:3]}"
