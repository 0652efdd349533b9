"""Define the dense model with as many parameters as a bank of experts.

It shows the savings and the losses of conditional computation.
"""

import torch

from bench.routing import Router, RouterInput, RoutingPlan, experts, register


@register("dense_parameters", family="bracket")
class DenseParameters(Router):
    """No routing, over the budget on purpose: one FFN as wide as all experts of a bank together.

    The width of an expert follows from the budget and from the number of experts per token. One
    expert for `mean_experts / num_experts` of the tokens is as wide as the whole bank, up to
    rounding by one unit per expert. Here every token takes it. A learned router has parameters of
    its own on top, which are not matched.

    Args:
        num_experts: size of the bank to match.
        mean_experts: mean number of the bank's experts per token.
    """

    pointwise = True
    paths = experts(1)

    def __init__(self, num_experts: int = 8, mean_experts: float = 1.0) -> None:
        super().__init__()
        if not 1 <= mean_experts <= num_experts:
            raise ValueError(
                f"mean_experts is {mean_experts}; allowed is 1 to num_experts, {num_experts}."
            )
        # The width is solved as if so few tokens took the expert; `forward` sends them all.
        self.mean_experts = mean_experts / num_experts

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        """Send every token through the whole width."""
        mask = torch.ones(*inputs.tokens.shape, 1, dtype=torch.bool, device=inputs.tokens.device)
        return RoutingPlan(mask, counts=(inputs.tokens.shape[1],))
