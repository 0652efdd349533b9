"""Define routing with null experts, which do nothing (arXiv:2406.13233, 2601.15370)."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from bench.routing import (
    AuxLoss,
    LayerTrace,
    Paths,
    RouterInput,
    RoutingPlan,
    Site,
    ThresholdChoice,
    biased,
    experts,
    register,
)
from bench.routing.balance_loss import Affinity
from bench.routing.token_choice import first_of


@register("null_experts", family="experts", paper="arXiv:2601.15370")
class NullExperts(ThresholdChoice):
    """The k most probable of the experts and of null experts, under one balance loss.

    Null experts do nothing and cost nothing. So a token takes none to k experts, and `k E / (E +
    N)` in the mean at balance. Null experts are copies with one logit (arXiv:2601.15370, section
    3): a token takes the experts among its k best that are more probable than a copy. AdaMoE
    (arXiv:2406.13233) has a logit for each copy, and averages their loads.

    On a small budget the loss alone lets the mean drift by a sixth. So a threshold T adds to the
    experts' probabilities where they are compared with a copy. A balance bias of the recipe
    changes which experts a token takes, never how many.

    Args:
        num_experts: size of the bank, E.
        num_null: number of null experts, N.
        active: number of experts and null experts per token, k.
        renormalise: weigh the chosen experts by their share of the chosen probability, without the
            null experts. A single expert keeps its probability.
        balance: weight of the load-balancing loss over experts and null experts, a sum over layers.
        threshold: "controlled" moves T in training to hold the mean of balance, and evaluation
            calibrates it; "fixed" keeps it at 0, as in the papers, and the row may miss the budget.
        control_rate: step of T per expert of difference between the two means.

    Raises:
        ValueError: an option that is not allowed.
    """

    pointwise = True
    fewest, limits = 0, (-1.0, 1.0)

    def __init__(
        self,
        num_experts: int = 8,
        num_null: int = 8,
        active: int = 4,
        renormalise: bool = True,
        balance: float = 0.01,
        threshold: Literal["controlled", "fixed"] = "controlled",
        control_rate: float = 0.005,
    ) -> None:
        mean = active * num_experts / (num_experts + num_null)
        super().__init__(
            num_experts, active, mean, threshold, 0.0, control_rate, renormalise, balance="none"
        )
        if num_null < active:
            raise ValueError(
                f"num_null is {num_null}; a token may take {active} of them, so there must be as "
                "many."
            )
        self.num_null = num_null
        self.paths = Paths(Site.FFN, (*experts(num_experts).names, "skip"))
        self.aux_losses["load_balance"] = AuxLoss(self._null_balance, balance)

    def make_scores(self, count: int) -> None:
        """Make a logit for each expert, and one for the null experts."""
        super().make_scores(count + 1)

    def affinity(self, logits: Float[Tensor, "batch seq path"]) -> Affinity:
        """Return the probabilities of the experts, and the probability of one null expert."""
        # One logit represents N copies, so it is raised by log N, and its probability divided by N.
        copies = torch.ones_like(logits[0, 0])
        copies[-1] = self.num_null
        return (logits + copies.log()).softmax(-1) / copies

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        """Take as many experts as are more probable than a null expert, the best ones."""
        logits = self.score(inputs)
        p = self.affinity(logits)
        working, null = p[..., :-1] + self.threshold_in(inputs), p[..., -1:]
        # Whether the expert of each rank beats a copy, by the router's own probabilities.
        taken = (working > null).gather(2, working.topk(self.active).indices)
        # A bias changes the order of the experts, never the number of them.
        wanted = biased(torch.cat((working, null), -1), inputs)[..., :-1]
        chosen = first_of(taken, logits[..., :-1], wanted, inputs)
        weight = self.weigh(chosen, p[..., :-1])
        # The last path does nothing: it holds the tokens with fewer than k experts.
        idle = chosen.sum(-1, keepdim=True) < self.active
        return RoutingPlan(
            torch.cat((chosen, idle), -1),
            torch.cat((weight, torch.zeros_like(weight[..., :1])), -1),
            logits,
        )

    def _null_balance(self, trace: LayerTrace) -> Float[Tensor, ""]:
        """Return `sum_i f_i P_i` over experts and copies, times their number."""
        p = self.affinity(self.logits_of(trace)).mean((0, 1))
        load = trace.plan.mask[..., :-1].float().mean((0, 1)) / self.active
        # The copies share the choices that the experts leave, and so do their probabilities.
        working, idle = (load * p[:-1]).sum(), (1 - load.sum()) * p[-1]
        return (self.num_experts + self.num_null) * (working + idle)
