"""Define routing with null experts, which do nothing (arXiv:2406.13233, 2601.15370)."""

import torch
from jaxtyping import Float
from torch import Tensor

from bench.routing import (
    AuxLoss,
    LayerTrace,
    Paths,
    RouterInput,
    RouterSpec,
    RoutingPlan,
    Site,
    TokenChoice,
    biased,
    experts,
    register,
)
from bench.routing.balance import Affinity, Choice
from bench.routing.estimators import highest


@register("null_experts", family="experts", paper="arXiv:2601.15370")
class NullExperts(TokenChoice):
    """The k most probable of the experts and of null experts, under one balance loss.

    Null experts do nothing and cost nothing. So a token takes none to k experts, and `k E / (E +
    N)` in the mean at balance. Null experts are copies with one logit (arXiv:2601.15370, section
    3): a token takes the experts among its k best that are more probable than a copy. AdaMoE
    (arXiv:2406.13233) has a logit for each copy, and averages their loads. In evaluation, the knob
    adds to the experts' probabilities.

    Args:
        num_experts: size of the bank, E.
        num_null: number of null experts, N.
        active: number of experts and null experts per token, k.
        renormalise: weigh the chosen experts by their share of the chosen probability, without the
            null experts. A single expert keeps its probability.
        balance: weight of the load-balancing loss over experts and null experts, a sum over layers.

    Raises:
        ValueError: an option that is not allowed.
    """

    def __init__(
        self,
        num_experts: int = 8,
        num_null: int = 8,
        active: int = 4,
        renormalise: bool = True,
        balance: float = 0.01,
    ) -> None:
        super().__init__(num_experts, active, renormalise=renormalise)
        if num_null < active:
            raise ValueError(
                f"num_null is {num_null}; a token may take {active} of them, so there must be as "
                "many."
            )
        self.num_null = num_null
        self.mean_experts = active * num_experts / (num_experts + num_null)
        self.paths = Paths(Site.FFN, (*experts(num_experts).names, "skip"))
        self.aux_losses["load_balance"] = AuxLoss(self._null_balance, balance)

    def build(self, spec: RouterSpec) -> None:
        """Make the matrix of the logits, the last for null experts, and the knob."""
        super().build(spec)
        self.enable_knob()

    def make_scores(self, count: int) -> None:
        """Make a logit for each expert, and one for the null experts."""
        super().make_scores(count + 1)

    def affinity(self, logits: Float[Tensor, "batch seq path"]) -> Affinity:
        """Return the probabilities of the experts, and that of one null expert."""
        # One logit stands for N copies, so it is raised by log N, and its probability divided by N.
        copies = torch.ones_like(logits[0, 0])
        copies[-1] = self.num_null
        return (logits + copies.log()).softmax(-1) / copies

    def weigh(self, chosen: Choice, affinity: Affinity) -> Affinity:
        """Return the factors on the outputs of the experts; a token may have none."""
        weight = affinity * chosen
        if not self.renormalise:
            return weight
        several = chosen.sum(-1, keepdim=True) > 1
        total = torch.where(several, weight.sum(-1, keepdim=True), torch.ones_like(weight[..., :1]))
        return weight / total

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        """Take the best experts that are more probable than a null expert."""
        logits = self.score(inputs)
        p = self.affinity(logits)
        wanted = biased(p, inputs)
        working, null = wanted[..., :-1], wanted[..., -1:]
        if inputs.selection == "causal" and self.knob is not None:
            working = working + self.knob
        chosen = highest(working, self.active) & (working > null)
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
        load = self._loads(trace.plan.mask)
        copies = torch.ones_like(p)
        copies[-1] = self.num_null
        return (self.num_experts + self.num_null) * (load * p * copies).sum()

    def _loads(self, mask: Choice) -> Float[Tensor, " path"]:
        """Return the share of choices that fell on each expert, and on each null expert."""
        taken = mask[..., :-1].float().mean((0, 1)) / self.active
        return torch.cat((taken, (1 - taken.sum()).reshape(1) / self.num_null))
