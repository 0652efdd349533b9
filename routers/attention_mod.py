"""Define Mixture-of-Depths by attention, without a learned score (arXiv:2412.20875)."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from bench.routing import RouterInput, RoutingPlan, TopTokens, register


@register("attention_mod", family="mixture_of_depths", paper="arXiv:2412.20875")
class AttentionMoD(TopTokens):
    """A block for the tokens that received the most attention in the layer before (section 3.2).

    In a decoder, attention to a token comes from later ones. So the score exists in training only,
    and a perceptron without gradient into the model predicts the top-k choice for evaluation, as in
    section 3.5 of arXiv:2404.02258. The score has no parameter, and scales nothing.

    Args:
        layers: routed layers to use. With every other block, the layer before is dense.
        capacity: share of tokens in a block; None to solve it from the budget.
        relative: divide by the attention that a position would receive if all tokens spread theirs
            evenly. The sum of a causal map favours early positions: more tokens see them.
        causal_weight: weight of the predictor's loss.
        width_ratio: hidden width of the predictor as a share of d_model.

    Raises:
        ValueError: an option that is not allowed.
    """

    pointwise = True
    needs = frozenset({"received"})

    def __init__(
        self,
        layers: Literal["every", "other"] = "other",
        capacity: float | None = None,
        relative: bool = True,
        causal_weight: float = 1.0,
        width_ratio: float = 0.25,
    ) -> None:
        super().__init__(capacity, "predictor", causal_weight, width_ratio)
        if layers not in ("every", "other"):
            raise ValueError(f"layers is {layers!r}; allowed are 'every', 'other'.")
        self.layers, self.relative = layers, relative

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        """Send the tokens that received the most attention through the block."""
        received = inputs.received
        if received is None:
            # Evaluation chooses by the predictor.
            received = torch.zeros_like(inputs.hidden[..., 0])
        elif self.relative:
            received = received / even_attention(received)
        return self.plan(received, inputs, None)


def even_attention(like: Float[Tensor, "batch seq"]) -> Float[Tensor, " seq"]:
    """Return the attention that each position receives if all tokens spread theirs evenly."""
    # Token i gives 1 / (i + 1) to itself and to each one before it.
    given = 1 / torch.arange(1, like.shape[1] + 1, device=like.device, dtype=like.dtype)
    return given.flip(0).cumsum(0).flip(0)
