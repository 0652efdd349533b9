"""Define the learned gate: full or cheap FFN for each token (arXiv:2604.17228)."""

from collections.abc import Mapping
from typing import Any, Literal

import torch.nn.functional as F
from torch import nn

from bench.routing import Gate, GateEstimator, RouterInput, RouterSpec, RoutingPlan, register


@register("mlp_gate", family="gate", paper="arXiv:2604.17228")
class MLPGate(Gate):
    """G1: a two-layer perceptron on the hidden state, `s = w2 . GELU(W1 h)`.

    By default the probability `sigmoid(s)` scales the outputs of the paths. The gate's gradient
    comes from there.

    Args:
        width_ratio: hidden width of the gate as a share of d_model.
        scale: outputs that the estimator "scale" scales: "both" (full by p, cheap by 1 - p) or
            only "full".
        estimator: source of the scores' gradient; `bench.routing.learned_gate.Gate` describes this
            option and the following ones.
        estimator_options: free parameters of the estimator.
        utility: weight of the regression of the score on oracle utility.
        rank: weight of the pairwise ranking of scores by oracle utility.
        rank_delta: least difference of the utilities of a pair that counts, nats.
        oracle: policy of the layers after the fork of a utility label.
        flip_fraction: share of tokens that a fork flips.
    """

    pointwise = True

    def __init__(
        self,
        width_ratio: float = 0.25,
        scale: Literal["both", "full"] = "both",
        estimator: GateEstimator = "scale",
        estimator_options: Mapping[str, Any] | None = None,
        utility: float = 0.0,
        rank: float = 0.0,
        rank_delta: float = 0.05,
        oracle: Literal["off_policy", "on_policy"] = "off_policy",
        flip_fraction: float = 0.25,
    ) -> None:
        super().__init__(
            estimator, estimator_options, scale, utility, rank, rank_delta, oracle, flip_fraction
        )
        if width_ratio <= 0:
            raise ValueError(f"width_ratio is {width_ratio}; it must be above 0.")
        self.width_ratio = width_ratio

    def build(self, spec: RouterSpec) -> None:
        """Make the perceptron."""
        super().build(spec)
        width = max(1, round(spec.d_model * self.width_ratio))
        self.hidden = nn.Linear(spec.d_model, width)
        self.score = nn.Linear(width, 1)

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        """Upgrade the tokens with the highest scores."""
        return self.plan(self.score(F.gelu(self.hidden(inputs.hidden))).squeeze(-1), inputs)
