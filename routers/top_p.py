"""Define top-p routing: as many experts as reach a probability (arXiv:2403.07652, 2512.13996)."""

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
    """The fewest experts whose probabilities together reach p (section 2.2).

    They are weighed by probability.

    Args:
        num_experts: size of the bank.
        mean_experts: intended mean number of experts per token; it fixes the width of an expert,
            and a controlled p holds it.
        threshold: "controlled" moves p in training to hold `mean_experts`, and evaluation
            calibrates it, in each layer separately; DTop-p (arXiv:2512.13996) moves one p for all.
            "fixed" keeps it at `initial_threshold`, as in the paper; then `mean_experts` must be
            the resulting mean, or the row misses the budget.
        initial_threshold: p at the start; the paper has 0.4.
        control_rate: step of p per expert of difference between the two means.
        renormalise: weigh several experts by their share of the chosen probability.
        balance: method, fields or list of `bench.routing.balance.Balance`; by default the
            load-balancing loss with weight 0.01, a sum over layers.
        entropy: weight of the entropy of the probabilities, which keeps tokens from taking all
            experts (section 2.3).
    """

    pointwise = True

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
        # Probability of the experts before each one; the first expert always runs.
        missing = ordered.cumsum(-1) - ordered < self.threshold_in(inputs)
        taken = torch.cat((torch.ones_like(missing[..., :1]), missing[..., 1:]), dim=-1)
        return self.plan(self.first(taken, logits, probability, inputs), logits, probability)
