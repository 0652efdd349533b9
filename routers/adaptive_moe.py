"""Define a router to one expert or more, by its confidence (arXiv:2310.07188)."""

from typing import Literal

import torch

from bench.routing import BalanceOption, RouterInput, RoutingPlan, ThresholdChoice, register


@register("adaptive_moe", family="experts", paper="arXiv:2310.07188")
class Adaptive(ThresholdChoice):
    """All experts whose probability lies within T of the highest.

    So a token takes one expert if the router is sure, and more if it is not. With at most two
    experts that is section 3.1: both run if `p(1) - p(2) <= T`.

    A fixed T sets no budget: the mean number of experts follows from T. To meet B, run twice. Read
    the mean from the first run, as the sum of the loads of a layer's experts, averaged over layers.
    Give it to the second run as `mean_experts`. The width of an expert is solved for it, so a pass
    with this mean costs B.

    Args:
        num_experts: size of the bank; the paper has 16.
        max_experts: largest number of experts per token; the paper has 2.
        mean_experts: intended mean number of experts per token; it fixes the width of an expert,
            and a controlled T holds it.
        threshold: "controlled" moves T in training to hold `mean_experts`, and evaluation
            calibrates it. "fixed" keeps it at `initial_threshold`, as in the paper; a row whose
            mean differs from `mean_experts` misses the budget.
        initial_threshold: T at the start; the paper has 0.1.
        control_rate: step of T per expert of difference between the two means.
        renormalise: weigh several experts by their share of the chosen probability, instead of the
            probability itself. A token with one expert keeps the probability, since a share of 1
            has no gradient.
        balance: method, fields or list of `bench.routing.balance.Balance`; the paper's loss counts
            tokens with one expert, with weight 0.01, a sum over layers (section 3.2). A bias moves
            the choice alone, never the confidence.
    """

    pointwise = True

    def __init__(
        self,
        num_experts: int = 8,
        max_experts: int = 2,
        mean_experts: float = 1.2,
        threshold: Literal["controlled", "fixed"] = "controlled",
        initial_threshold: float = 0.1,
        control_rate: float = 0.02,
        renormalise: bool = False,
        balance: BalanceOption = "soft",
    ) -> None:
        super().__init__(
            num_experts,
            max_experts,
            mean_experts,
            threshold,
            initial_threshold,
            control_rate,
            renormalise,
            balance,
        )

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        """Take the experts that the first one leads by at most T."""
        logits = self.score(inputs)
        p = self.affinity(logits)
        # The confidence is the router's own, without a bias.
        top = p.topk(self.active).values
        near = top[..., :1] - top[..., 1:] <= self.threshold_in(inputs)
        taken = torch.cat((torch.ones_like(near[..., :1]), near), dim=-1)
        # A second softmax: committed rows pay for two, until the rules change.
        return self.plan(self.first(taken, logits, p, inputs), logits, self.affinity(logits))
