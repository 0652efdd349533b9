"""Define the router of GShard: two experts per token (arXiv:2006.16668)."""

from dataclasses import replace

import torch

from bench.routing import (
    BalanceOption,
    LayerTrace,
    RouterInput,
    RoutingPlan,
    Scores,
    TokenChoice,
    register,
)
from bench.routing.balance_loss import Choice
from bench.routing.estimators import highest


@register("top2_moe", family="experts", paper="arXiv:2006.16668")
class Top2(TokenChoice):
    """The two most probable experts, weighed by renormalised probability (GShard, section 2.2).

    There is no capacity limit, so no token is dropped.

    Args:
        num_experts: size of the bank, before it is split.
        scores: affinity of an expert: the "softmax" of its logit over experts, or its "sigmoid".
        renormalise: weigh the chosen by their share of the chosen affinity, instead of the affinity
            itself.
        num_shared: number of experts that every token also takes.
        granularity: parts of each expert; a token takes twice as many of them.
        balance: method, fields or list of `bench.routing.balance.Balance`; by default the
            load-balancing loss with weight 0.01, a sum over layers.
        first_choices: count only the best expert of each token in the load-balancing loss, as in
            GShard (algorithm 1), instead of both.
        random_second: in training, keep an expert other than the best with a probability of twice
            its weight (algorithm 1). Evaluation keeps all.
    """

    pointwise = True

    def __init__(
        self,
        num_experts: int = 8,
        scores: Scores = "softmax",
        renormalise: bool = True,
        num_shared: int = 0,
        granularity: int = 1,
        balance: BalanceOption = "auxiliary",
        first_choices: bool = False,
        random_second: bool = False,
    ) -> None:
        super().__init__(num_experts, 2, scores, renormalise, num_shared, granularity, balance)
        self.first_choices, self.random_second = first_choices, random_second

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        """Take the two best; with `random_second`, training leaves some out."""
        plan = super().forward(inputs)
        if not self.random_second or inputs.selection == "causal" or plan.weight is None:
            return plan
        draw = torch.rand(plan.mask.shape, generator=inputs.generator, device=plan.mask.device)
        # Shared experts have weight 1 and so are among the highest: they and the best always stay.
        best = highest(plan.weight * plan.mask, self.num_shared + 1)
        kept = plan.mask & (best | (draw < 2 * plan.weight))
        return replace(plan, mask=kept, choice=plan.mask)

    def counted_of(self, trace: LayerTrace) -> Choice:
        """Return the choices that the load-balancing loss counts."""
        counted = super().counted_of(trace)
        if not self.first_choices:
            return counted
        return highest(self.affinity(self.logits_of(trace)) * counted)
