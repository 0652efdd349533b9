"""Define expert thresholds: experts take the tokens above them (arXiv:2603.11535)."""

import torch
from torch import Tensor

from bench.routing import LayerTrace, RouterInput, RouterSpec, RoutingPlan, TokenChoice, register


@register("expert_threshold", family="experts", paper="arXiv:2603.11535")
class ExpertThreshold(TokenChoice):
    """The tokens above a threshold for each expert. A token may take none.

    The threshold is a moving average of the quantile at which the expert takes its share of a
    batch. Training and evaluation choose in the same way. Calibration moves the thresholds of
    evaluation to the budget.

    Args:
        num_experts: size of the bank.
        mean_experts: mean number of experts per token.
        momentum: momentum of the moving average; the first steps have equal weight.

    Raises:
        ValueError: an option that is not allowed.
    """

    pointwise = True
    allows_none = True
    quantile: Tensor
    steps: Tensor

    def __init__(
        self, num_experts: int = 8, mean_experts: float = 2.0, momentum: float = 0.9
    ) -> None:
        super().__init__(
            num_experts, scores="sigmoid", renormalise=False, mean_experts=mean_experts
        )
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum is {momentum}; it must be at least 0 and below 1.")
        self.momentum = momentum

    def build(self, spec: RouterSpec) -> None:
        """Make the matrix of the logits, the thresholds, and a knob for each expert."""
        super().build(spec)
        self.register_buffer("quantile", torch.full((self.num_experts,), 0.5))
        self.register_buffer("steps", torch.zeros(()))
        self.register_buffer("knob", torch.zeros(self.num_experts))

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        """Compare affinities with the thresholds."""
        assert self.knob is not None
        logits = self.score(inputs)
        affinity = self.affinity(logits)
        # Training follows the moving average; evaluation has calibrated thresholds.
        limit = self.quantile if inputs.selection == "topk" else -self.knob
        return self.plan(affinity > limit, logits, affinity)

    def after_step(self, trace: LayerTrace) -> None:
        """Move the thresholds towards the quantiles of the last batch."""
        # Quantiles are not defined in bfloat16.
        affinity = self.affinity(self.logits_of(trace)).flatten(0, 1).float()
        found = affinity.quantile(1 - self.mean_experts / self.num_experts, dim=0)
        # A plain mean at first, so that the start value is forgotten at once.
        newest = (1 / (self.steps + 1)).clamp_min(1 - self.momentum)
        self.quantile.lerp_(found, newest)
        self.steps.add_(1)
