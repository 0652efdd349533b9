"""The dense model with as many parameters as a bank of experts has.

What conditional computation saves, and what it loses.
"""

import torch

from bench.routing import Router, RouterInput, RoutingPlan, experts, register


@register("dense_parameters", family="bracket")
class DenseParameters(Router):
    """No routing, over the budget on purpose: one FFN for every token, as wide as all experts of a
    bank together.

    The width of an expert follows from the budget and from how many of them a token takes. One
    expert that is to be taken by `mean_experts / num_experts` of the tokens comes out as wide as
    the whole bank, to the rounding of a unit an expert; here every token takes it. A learned
    router's own parameters come on top of its bank's and are not matched.

    Args:
        num_experts: size of the bank to match.
        mean_experts: experts of it that a token takes.
    """

    paths = experts(1)

    def __init__(self, num_experts: int = 8, mean_experts: float = 1.0) -> None:
        super().__init__()
        if not 1 <= mean_experts <= num_experts:
            raise ValueError(
                f"mean_experts is {mean_experts}; allowed is 1 to num_experts, {num_experts}."
            )
        self.mean_experts = mean_experts / num_experts

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        """Send every token through the whole width."""
        mask = torch.ones(*inputs.tokens.shape, 1, dtype=torch.bool, device=inputs.tokens.device)
        return RoutingPlan(mask, counts=(inputs.tokens.shape[1],))
