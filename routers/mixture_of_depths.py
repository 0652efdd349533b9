"""Define Mixture-of-Depths (arXiv:2404.02258): a block for some tokens, none for the others."""

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
    """A block, scaled by r, for the tokens with the highest `r = w . x`.

    Top-k over the sequence is used in training only. Evaluation compares r with a threshold that
    was calibrated on held-out text. `centre` adds the paper's auxiliary cross-entropy, which moves
    that threshold close to 0.

    Args:
        layers: routed layers to use; the paper's best choice is every other block.
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
        # Scaled by r itself, as in the paper, so that r gets a gradient.
        return gate_plan(chosen, count, scores, (scores.new_ones(scores.shape), scores))
