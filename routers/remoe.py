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

    A factor that swings by a fifth a step never rests, and at the end, when the learning rate
    falls, the router no longer follows it. So in the last part of training a shift of the logits
    holds the number instead; evaluation is calibrated by the same shift.

    Args:
        num_experts: size of the bank.
        mean_experts: mean number of experts per token.
        start: factor of the penalty at the start.
        ratio: change of the factor in a step.
        settled: share of training after which the shift holds the number; 1 is the paper.

    Raises:
        ValueError: an option that is not allowed.
    """

    pointwise = True
    allows_none = True
    factor: Tensor
    shift: Tensor

    def __init__(
        self,
        num_experts: int = 8,
        mean_experts: float = 2.0,
        start: float = 1e-8,
        ratio: float = 1.2,
        settled: float = 0.7,
    ) -> None:
        super().__init__(num_experts, renormalise=False, mean_experts=mean_experts)
        if start <= 0 or ratio <= 1:
            raise ValueError(
                f"start is {start} and ratio {ratio}; they must be above 0 and above 1."
            )
        if not 0 <= settled <= 1:
            raise ValueError(f"settled is {settled}; it must lie in [0, 1].")
        self.start, self.ratio, self.settled = start, ratio, settled
        self.aux_losses["sparsity"] = AuxLoss(self.penalty, 1.0, layers="mean")

    def build(self, spec: RouterSpec) -> None:
        """Make the matrix of the logits, the factor of the penalty, the shift and the knob."""
        super().build(spec)
        self.register_buffer("factor", torch.tensor(self.start))
        self.register_buffer("shift", torch.zeros(()))
        self.enable_knob()

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        """Take the experts with a shifted logit above 0."""
        assert self.knob is not None
        logits = self.score(inputs)
        weight = (logits + (self.shift if inputs.selection == "topk" else self.knob)).relu()
        return RoutingPlan(weight > 0, weight, logits)

    def penalty(self, trace: LayerTrace) -> Float[Tensor, ""]:
        """Return the factor times a token's weights, each times its expert's relative load."""
        assert trace.plan.weight is not None
        # 1 at perfect balance and the intended number of experts.
        load = trace.plan.mask.float().mean((0, 1)) / (self.mean_experts / self.num_experts)
        return self.factor * (load * trace.plan.weight).sum(-1).mean()

    def after_step(self, trace: LayerTrace) -> None:
        """Raise the factor if too many experts run, else lower it; in the end move the shift."""
        assert trace.plan.scores is not None
        excess = trace.plan.mask.float().mean() - self.mean_experts / self.num_experts
        if trace.inputs.progress < self.settled:
            self.factor.mul_(self.ratio ** excess.sign())
        else:
            # By the spread of the logits, a step corrects about half of the excess at any scale.
            self.shift.sub_(trace.plan.scores.std() * excess)
