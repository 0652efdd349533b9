"""Define expert choice: experts choose their tokens (arXiv:2202.09368)."""

import torch

from bench.routing import RouterInput, RouterSpec, RoutingPlan, TokenChoice, register, tokens_kept


@register("expert_choice", family="experts", paper="arXiv:2202.09368")
class ExpertChoice(TokenChoice):
    """The best tokens of the sequence for each expert, all experts with the same number of tokens.

    A token may take none (section 3.2). This choice looks ahead, so it is for training only. In
    evaluation, each expert takes the tokens above its own threshold, which calibration sets to the
    same share.

    Args:
        num_experts: size of the bank.
        mean_experts: mean number of experts per token, the capacity factor of the paper.

    Raises:
        ValueError: an option that is not allowed.
    """

    pointwise = True
    allows_none = True

    def __init__(self, num_experts: int = 8, mean_experts: float = 2.0) -> None:
        super().__init__(num_experts, renormalise=False, mean_experts=mean_experts)

    def build(self, spec: RouterSpec) -> None:
        """Make the matrix of the logits, and a knob for each expert."""
        super().build(spec)
        self.register_buffer("knob", torch.zeros(self.num_experts))

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        """Take the best tokens of each expert, or those above its threshold."""
        logits = self.score(inputs)
        affinity = self.affinity(logits)
        # A threshold per expert depends on the token alone.
        if inputs.selection == "causal":
            assert self.knob is not None
            return self.plan(affinity > -self.knob, logits, affinity)
        count = tokens_kept(self.mean_experts / self.num_experts, logits.shape[1])
        best = affinity.topk(count, dim=1).indices
        chosen = torch.zeros_like(logits, dtype=torch.bool).scatter(1, best, True)
        plan = self.plan(chosen, logits, affinity)
        # Known beforehand, so the dispatcher need not wait for the device.
        plan.counts = (count,) * self.num_experts
        return plan
