"""Mixture-of-Depths: whole blocks for some tokens, the residual stream for the rest
(arXiv:2404.02258).
"""

from typing import Literal

from torch import nn

from bench.routing import (
    BLOCK_GATE,
    AuxLoss,
    Router,
    RouterInput,
    RouterSpec,
    RoutingPlan,
    gate_plan,
    losses,
    perturb,
    register,
    upgrade,
)


@register("mod", family="mixture_of_depths", paper="arXiv:2404.02258")
class MixtureOfDepths(Router):
    """`r = w . x`; the tokens with the highest r go through attention and FFN, whose update is
    scaled by r.

    Top-k over the sequence is used in training only. Evaluation compares r with a threshold that
    was calibrated on held-out text; `centre` adds the paper's auxiliary cross-entropy, which brings
    that threshold near 0.

    Args:
        layers: routed layers to use; every other block is the paper's best.
        centre: weight of the auxiliary loss of section 3.5.
    """

    paths = BLOCK_GATE

    def __init__(self, layers: Literal["every", "other"] = "other", centre: float = 0.0) -> None:
        super().__init__()
        if layers not in ("every", "other"):
            raise ValueError(f"layers is {layers!r}; allowed are 'every', 'other'.")
        self.layers = layers
        self.aux_losses = {"centre": AuxLoss(losses.centre, centre, layers="mean")}

    def build(self, spec: RouterSpec) -> None:
        """Make the score vector."""
        super().build(spec)
        self.score = nn.Linear(spec.d_model, 1, bias=False)
        self.enable_knob()

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        """Send the tokens with the highest scores through the block."""
        scores = perturb(self.score(inputs.hidden).squeeze(-1), inputs)
        chosen, count = upgrade(scores, inputs, self.spec, self.knob)
        return gate_plan(chosen, count, scores, (scores.new_ones(scores.shape), scores))
