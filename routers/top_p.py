"""As many experts as it takes to be sure (arXiv:2403.07652, 2512.13996)."""

from typing import Literal

import torch

from bench.routing import (
    AuxLoss,
    BalanceOption,
    RouterInput,
    RoutingPlan,
    ThresholdChoice,
    losses,
    register,
)


@register("top_p", family="experts", paper="arXiv:2403.07652")
class TopP(ThresholdChoice):
    """The fewest experts whose probabilities together reach p, weighed by probability (section
    2.2).

    Args:
        num_experts: size of the bank.
        mean_experts: experts that a token is to take on average; fixes the width of an expert, and
            is what p is moved for.
        threshold: "controlled" moves p in training to hold `mean_experts`, and evaluation
            calibrates it, for each layer on its own; DTop-p (arXiv:2512.13996) moves one p for all.
            "fixed" keeps it at `initial_threshold`, as in the paper; what a token takes then comes
            of it, and `mean_experts` must say it for the row to meet the budget.
        initial_threshold: p at the start; the paper has 0.4.
        control_rate: step of p for each expert that the mean is off.
        renormalise: weigh several experts by their share of the chosen probability.
        balance: method, fields or list of `bench.routing.balance.Balance`; by default the
            load-balancing loss with weight 0.01, a sum over layers.
        entropy: weight of the entropy of the probabilities, which keeps tokens from taking all
            experts (section 2.3).
    """

    def __init__(
        self,
        num_experts: int = 8,
        mean_experts: float = 2.0,
        threshold: Literal["controlled", "fixed"] = "controlled",
        initial_threshold: float = 0.4,
        control_rate: float = 0.02,
        renormalise: bool = False,
        balance: BalanceOption = "auxiliary",
        entropy: float = 1e-4,
    ) -> None:
        super().__init__(
            num_experts,
            num_experts,
            mean_experts,
            threshold,
            initial_threshold,
            control_rate,
            renormalise,
            balance,
        )
        self.aux_losses["entropy"] = AuxLoss(losses.entropy, entropy)

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        """Take experts from the best on until p is reached."""
        logits = self.score(inputs)
        probability = self.affinity(logits)
        ordered = probability.sort(descending=True).values
        missing = ordered.cumsum(-1) - ordered < self.threshold_in(inputs)
        taken = torch.cat((torch.ones_like(missing[..., :1]), missing[..., 1:]), dim=-1)
        return self.plan(self.first(taken, probability, inputs), logits, probability)
