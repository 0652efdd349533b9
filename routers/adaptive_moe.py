"""One expert or more, by the router's confidence (arXiv:2310.07188)."""

from typing import Literal

import torch

from bench.routing import BalanceOption, RouterInput, RoutingPlan, ThresholdChoice, register


@register("adaptive_moe", family="experts", paper="arXiv:2310.07188")
class Adaptive(ThresholdChoice):
    """One expert where the router is sure, more where it is not: all run whose probability lies
    within T of the highest.

    With two experts at most that is section 3.1: both run if `p(1) - p(2) <= T`.

    Args:
        num_experts: size of the bank; the paper has 16.
        max_experts: experts that a token takes at most; the paper has 2.
        mean_experts: experts that a token is to take on average; fixes the width of an expert, and
            is what T is moved for.
        threshold: "controlled" moves T in training to hold `mean_experts`, and evaluation
            calibrates it. "fixed" keeps it at `initial_threshold`, as in the paper; what a token
            takes then comes of it, and `mean_experts` must say it for the row to meet the budget.
        initial_threshold: T at the start; the paper has 0.1.
        control_rate: step of T for each expert that the mean is off.
        renormalise: weigh several experts by their share of the chosen probability, instead of the
            probability itself. A token with one expert keeps the probability, since a share of 1
            would have no gradient.
        balance: method, fields or list of `bench.routing.balance.Balance`; the paper's counts
            tokens with one expert, with weight 0.01, a sum over layers (section 3.2). A bias moves
            the choice alone, never the confidence.
    """

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
        """Take further experts where the first leads them by no more than T."""
        logits = self.score(inputs)
        p = self.affinity(logits)
        top = p.topk(self.active).values  # confidence is the router's own, without a bias
        near = top[..., :1] - top[..., 1:] <= self.threshold_in(inputs)
        taken = torch.cat((torch.ones_like(near[..., :1]), near), dim=-1)
        # Taken anew: committed rows pay for two softmaxes, until the rules change.
        return self.plan(self.first(taken, p, inputs), logits, self.affinity(logits))
