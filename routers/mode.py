"""Define Mixture-of-Depths-and-Experts (arXiv:2404.02258, section 4.3), in both its forms."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bench.routing import (
    BLOCK_GATE,
    AuxLoss,
    LayerTrace,
    Paths,
    Router,
    RouterInput,
    RouterSpec,
    RoutingPlan,
    Site,
    TokenChoice,
    experts,
    gate_plan,
    perturb,
    register,
    tokens_kept,
    top_k_mask,
    upgrade,
)
from bench.routing.balance_loss import balance_loss, load_shares


@register("mode", family="mixture_of_depths", paper="arXiv:2404.02258")
class MoDE(Router):
    """Mixture-of-Depths with experts: a token takes one expert or none.

    "integrated": a no-op expert is among the experts of an FFN, and attention runs for all
    tokens. The experts have the width that the budget leaves. "staged": tokens take a block or skip
    it, and those in the block choose an expert in place of its FFN, as wide as that.

    Args:
        mode: one of the two.
        num_experts: size of the bank.
        mean_experts: share of the tokens that take an expert, for "integrated".
        balance: weight of the load-balancing loss over the experts, a sum over layers.
        layers: routed layers to use; None for every FFN, and for every other block.

    Raises:
        ValueError: an option that is not allowed.
    """

    pointwise = True

    def __init__(
        self,
        mode: Literal["integrated", "staged"] = "integrated",
        num_experts: int = 8,
        mean_experts: float = 0.5,
        balance: float = 0.01,
        layers: Literal["every", "other"] | None = None,
    ) -> None:
        super().__init__()
        if mode not in ("staged", "integrated"):
            raise ValueError(f"mode is {mode!r}; allowed are 'integrated', 'staged'.")
        if num_experts < 2:
            raise ValueError(f"num_experts is {num_experts}; at least 2 are needed.")
        if not 0 < mean_experts <= 1:
            raise ValueError(f"mean_experts is {mean_experts}; it must be above 0 and at most 1.")
        if layers not in (None, "every", "other"):
            raise ValueError(f"layers is {layers!r}; allowed are 'every', 'other'.")
        self.mode, self.num_experts, self.balance = mode, num_experts, balance
        # Staged routes blocks and has its experts inside; integrated routes FFNs alone.
        staged = mode == "staged"
        self.layers = layers or ("other" if staged else "every")
        self.paths = (
            BLOCK_GATE if staged else Paths(Site.FFN, (*experts(num_experts).names, "skip"))
        )
        if not staged:
            self.mean_experts = mean_experts
            self.aux_losses["load_balance"] = AuxLoss(_balance, balance)

    def inside(self) -> Router | None:
        """Make the router of the experts inside the block."""
        if self.mode != "staged":
            return None
        rule = {"method": "auxiliary", "weight": self.balance}
        # The probability is the only gradient of a single expert.
        inner = TokenChoice(self.num_experts, active=1, renormalise=False, balance=rule)
        inner.pointwise = True
        return inner

    def build(self, spec: RouterSpec) -> None:
        """Make a score for the block, or for each expert and the no-op expert."""
        super().build(spec)
        outputs = 1 if self.mode == "staged" else self.num_experts + 1
        self.score = nn.Linear(spec.d_model, outputs, bias=False)
        self.enable_knob()

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        """Choose the tokens of the block, or an expert or none for each token."""
        scores = self.score(inputs.hidden)
        if self.mode == "staged":
            # The score of an upgrade is `[batch, seq]`, for the noise of the recipe too.
            scores = perturb(scores.squeeze(-1), inputs)
            chosen, count = upgrade(scores, inputs, self.spec, self.knob)
            return gate_plan(chosen, count, scores, (scores.new_ones(scores.shape), scores))
        # A token takes its best expert if that leads the no-op expert by enough.
        scores = perturb(scores, inputs)
        # No bias of the recipe moves the choice, so a suite that sets one is refused.
        best = scores[..., :-1].topk(1).indices
        lead = scores.gather(-1, best).squeeze(-1) - scores[..., -1]
        if inputs.selection == "causal":
            assert self.knob is not None
            taken = lead > -self.knob
        else:
            count = tokens_kept(self.spec.mean_experts, lead.shape[1])
            taken = top_k_mask(lead.detach(), count)
        mask = torch.zeros_like(scores[..., :-1], dtype=torch.bool).scatter(-1, best, True)
        mask = torch.cat((mask & taken.unsqueeze(-1), ~taken.unsqueeze(-1)), dim=-1)
        return RoutingPlan(mask, scores.softmax(-1), scores)


def _balance(trace: LayerTrace) -> Float[Tensor, ""]:
    """Return the load-balancing loss over the experts, without the no-op expert."""
    assert trace.plan.scores is not None
    # The budget fixes the load of the no-op expert.
    load = load_shares(trace.plan.mask[..., :-1])
    return balance_loss(load, trace.plan.scores[..., :-1].softmax(-1))
