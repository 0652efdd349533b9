"""Audit of a run: what routers do in it must be what they were priced for.

Prices are taken before training. At steps of training that follow from the seed, and in every
official evaluation, the routers are asked under the counter, so that work which only the run sees,
or a plan that is not what it says, is found.
"""

import time
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from bench.backbone.passes import Decide, ask
from bench.errors import RuleBroken
from bench.flops.counter import OpCounter, Sealed, UncountedOp
from bench.flops.ledger import Ledger
from bench.rng import key
from bench.routing.contract import Router, RouterInput, RoutingPlan, Selection

INSPECTED = 0.02
"""Share of training steps under inspection; the first is one of them."""
PRICE_TOLERANCE = 0.01
SLACK = 1e-5
"""Of B: what a router may cost a token beyond its price however small the price is."""
OTHER_THREADS = 0.1
"""Processor time that threads beside the router's own may take while it is asked, as a share of its
own, over a whole run.
"""
OTHER_SECONDS = 0.05
"""What they may take in any case, for those that draw progress bars."""


class Meter:
    """Stands between the model and its routers where a run is inspected.

    Args:
        routers: of the model, in the order of the ledgers' sites.
        ledgers: the prices of training ("topk") and of evaluation ("causal").
        target: B, FLOPs a token.
        seed: of the cell; fixes the steps that are inspected.
    """

    def __init__(
        self,
        routers: Sequence[Router],
        ledgers: Mapping[Selection, Ledger],
        target: float,
        seed: int,
    ) -> None:
        self.seed = seed
        self.slack = SLACK * target
        self.own = self.others = 0.0
        self.prices = {
            (id(router), selection): site.router
            for selection, ledger in ledgers.items()
            for router, site in zip(routers, ledger.sites, strict=True)
        }

    def due(self, step: int) -> bool:
        """Whether a step of training is inspected.

        A function of seed and step, so that a resumed run inspects the same.
        """
        return step == 0 or key(self.seed, "inspect", step) % 10_000 < INSPECTED * 10_000

    def decide_at(self, step: int) -> Decide:
        """The way to a plan at a step of training."""
        return self.decide if self.due(step) else ask

    def decide(self, router: Router, inputs: RouterInput) -> RoutingPlan:
        """Ask the router under the counter and hold the answer against its price and the contract.

        Raises:
            RuleBroken: it costs more than its price, leaves its inputs changed, works on other
                threads, or its plan is malformed.
        """
        where = f"Router of layer {router.spec.layer}, {inputs.selection} selection"
        given = (
            inputs.hidden,
            inputs.tokens,
            inputs.positions,
            inputs.tags,
            inputs.truth,
            inputs.attention,
        )
        given = [tensor for tensor in given if tensor is not None]
        copies = [tensor.detach().clone() for tensor in given]
        process, thread = time.process_time(), time.thread_time()
        try:
            with OpCounter() as counter, Sealed():
                plan = ask(router, inputs)
        except UncountedOp as error:
            raise RuleBroken(f"{where}: {error}") from None
        own, process = time.thread_time() - thread, time.process_time() - process
        if any(
            not torch.allclose(tensor, copy, rtol=0, atol=0, equal_nan=True)
            for tensor, copy in zip(given, copies, strict=True)
        ):
            raise RuleBroken(f"{where}: it changed its inputs in place.")
        spent, price = (
            counter.total / inputs.tokens.numel(),
            self.prices[id(router), inputs.selection],
        )
        if spent > price * (1 + PRICE_TOLERANCE) + self.slack:
            raise RuleBroken(
                f"{where}: it costs {spent:,.0f} FLOPs a token in the run; its price, taken before, is {price:,.0f}."
            )
        self._threads(own, process - own, inputs.hidden, where)
        check_plan(plan, inputs, len(router.paths.names), where)
        return plan

    def _threads(self, own: float, others: float, hidden: Tensor, where: str) -> None:
        """The counter sees its own thread.

        On one CPU thread a process that works more than it has company.
        """
        if hidden.is_cuda or torch.get_num_threads() > 1:
            return
        self.own, self.others = self.own + own, self.others + others
        if self.others > OTHER_SECONDS + OTHER_THREADS * self.own:
            raise RuleBroken(
                f"{where}: other threads worked for {self.others:.3f} s of processor time while it was asked."
            )


def check_plan(plan: RoutingPlan, inputs: RouterInput, num_paths: int, where: str) -> None:
    """Hold a plan to the contract that dispatch and ledger rely on.

    Raises:
        RuleBroken: shape or type of the mask or weight is wrong, merged experts have other than one
            path a token, or the counts are not those of the mask.
    """
    shape = (*inputs.tokens.shape, num_paths)
    if plan.mask.shape != shape or plan.mask.dtype is not torch.bool:
        raise RuleBroken(
            f"{where}: plan.mask is {plan.mask.dtype} {tuple(plan.mask.shape)}; it must be torch.bool {shape}."
        )
    if plan.weight is not None and plan.weight.shape != shape:
        raise RuleBroken(
            f"{where}: plan.weight has shape {tuple(plan.weight.shape)}; it must be {shape}."
        )
    if plan.merge is not None and bool((plan.mask.sum(-1) != 1).any()):
        raise RuleBroken(
            f"{where}: plan.mask marks other than one path for a token whose experts are merged, of which one runs."
        )
    if plan.counts is not None and bool(
        (plan.mask.sum(1) != torch.tensor(plan.counts, device=plan.mask.device)).any()
    ):
        raise RuleBroken(
            f"{where}: plan.counts is {plan.counts}, which the mask does not keep in every sequence."
        )
