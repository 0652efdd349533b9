"""Learned gates: full or cheap FFN for each token (arXiv:2604.17228)."""

from typing import Literal

import torch.nn.functional as F
from torch import nn

from bench.contract import FFN_GATE, Router, RouterInput, RouterSpec, RoutingPlan
from bench.registry import register
from bench.select import gate_plan, upgrade


@register("mlp_gate", family="gate", paper="arXiv:2604.17228")
class MLPGate(Router):
    """G1: a two-layer perceptron on the hidden state, `s = w2 . GELU(W1 h)`.

    The probability `sigmoid(s)` scales the outputs of the paths, which is where the gate's gradient comes from.

    Args:
        width_ratio: hidden width of the gate as a share of d_model.
        scale: which outputs the gate scales: "both" (full by p, cheap by 1 - p) or only the "full" one.
    """

    paths = FFN_GATE

    def __init__(self, width_ratio: float = 0.25, scale: Literal["both", "full"] = "both") -> None:
        super().__init__()
        if width_ratio <= 0:
            raise ValueError(f"width_ratio is {width_ratio}; it must be above 0.")
        if scale not in ("both", "full"):
            raise ValueError(f"scale is {scale!r}; allowed are 'both', 'full'.")
        self.width_ratio, self.scale = width_ratio, scale

    def build(self, spec: RouterSpec) -> None:
        """Make the perceptron."""
        super().build(spec)
        width = max(1, round(spec.d_model * self.width_ratio))
        self.hidden = nn.Linear(spec.d_model, width)
        self.score = nn.Linear(width, 1)
        self.enable_knob()

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        """Upgrade the tokens with the highest scores."""
        scores = self.score(F.gelu(self.hidden(inputs.hidden))).squeeze(-1)
        chosen, count = upgrade(scores, inputs, self.spec, self.knob)
        p = scores.sigmoid()
        base = 1 - p if self.scale == "both" else p.new_ones(p.shape)
        return gate_plan(chosen, count, scores, (base, p))
