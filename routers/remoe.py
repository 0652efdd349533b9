"""Define ReMoE, with a rectifier instead of top-k (arXiv:2412.14711)."""

import torch
from jaxtyping import Float
from torch import Tensor

from bench.routing import (
    AuxLoss,
    LayerTrace,
    RouterInput,
    RouterSpec,
    RoutingPlan,
    TokenChoice,
    register,
)


@register("remoe", family="experts", paper="arXiv:2412.14711")
class ReMoE(TokenChoice):
    """Experts with `relu(x W)` above 0, weighed by it. A token may take none.

    A controlled penalty holds the number of experts. It is the sum of the weights, and weights of
    busy experts count more (section 3.4). Its factor grows by a constant ratio after a step with
    too many experts, and falls after a step with too few (section 3.3). At first it is almost 0, so
    about half of the experts run. Each layer has its own factor; the paper has one for all.

    Args:
        num_experts: size of the bank.
        mean_experts: mean number of experts per token.
        start: factor of the penalty at the start.
        ratio: change of the factor in a step.

    Raises:
        ValueError: an option that is not allowed.
    """

    allows_none = True
    factor: Tensor

    def __init__(
        self,
        num_experts: int = 8,
        mean_experts: float = 2.0,
        start: float = 1e-8,
        ratio: float = 1.2,
    ) -> None:
        super().__init__(num_experts, 1, renormalise=False)
        if not 0 < mean_experts < num_experts:
            raise ValueError(
                f"mean_experts is {mean_experts}; allowed is above 0 and below num_experts, "
                f"{num_experts}."
            )
        if start <= 0 or ratio <= 1:
            raise ValueError(
                f"start is {start} and ratio {ratio}; they must be above 0 and above 1."
            )
        self.mean_experts, self.start, self.ratio = mean_experts, start, ratio
        self.aux_losses["sparsity"] = AuxLoss(self.penalty, 1.0, layers="mean")

    def build(self, spec: RouterSpec) -> None:
        """Make the matrix of the logits, the factor of the penalty, and the knob."""
        super().build(spec)
        self.register_buffer("factor", torch.tensor(self.start))
        self.enable_knob()

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        """Take the experts with a logit above 0."""
        logits = self.score(inputs)
        # The knob adds to the logits, and so moves all thresholds.
        shifted = logits if inputs.selection == "topk" or self.knob is None else logits + self.knob
        weight = shifted.relu()
        return RoutingPlan(weight > 0, weight, logits)

    def penalty(self, trace: LayerTrace) -> Float[Tensor, ""]:
        """Return the factor times a token's weights, each times its expert's relative load."""
        assert trace.plan.weight is not None
        # 1 at perfect balance and the intended number of experts.
        load = trace.plan.mask.float().mean((0, 1)) / (self.mean_experts / self.num_experts)
        return self.factor * (load * trace.plan.weight).sum(-1).mean()

    def after_step(self, trace: LayerTrace) -> None:
        """Raise the factor if too many experts run, else lower it."""
        excess = trace.plan.mask.float().mean() - self.mean_experts / self.num_experts
        self.factor.mul_(self.ratio ** excess.sign())
