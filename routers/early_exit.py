"""Define early exit: a token that leaves takes no later routed block (arXiv:2507.10524)."""

from typing import Literal

import torch
from torch import nn

from bench.routing import (
    BLOCK_GATE,
    Router,
    RouterInput,
    RouterSpec,
    RoutingPlan,
    gate_plan,
    perturb,
    register,
    tokens_kept,
    top_k_mask,
)


@register("early_exit", family="mixture_of_depths", paper="arXiv:2507.10524")
class EarlyExit(Router):
    """A block for the best of the tokens that took the block before, scaled by `sigmoid(w . x)`.

    The share of tokens falls evenly with depth (hierarchical filtering, section 2.2.1).

    Args:
        last: share of tokens in the last routed layer, relative to the first.
        layers: routed layers to use.

    Raises:
        ValueError: an option that is not allowed.
    """

    pointwise = True
    paths = BLOCK_GATE

    def __init__(self, last: float = 0.6, layers: Literal["every", "other"] = "every") -> None:
        super().__init__()
        if not 0 < last <= 1:
            raise ValueError(f"last is {last}; it must be above 0 and at most 1.")
        if layers not in ("every", "other"):
            raise ValueError(f"layers is {layers!r}; allowed are 'every', 'other'.")
        self.last, self.layers = last, layers

    def relative_share(self, path: str, place: int, count: int) -> float:
        """Return a share that falls from 1 to `last`."""
        return 1 - (1 - self.last) * place / max(1, count - 1)

    def build(self, spec: RouterSpec) -> None:
        """Make the score vector."""
        super().build(spec)
        self.score = nn.Linear(spec.d_model, 1, bias=False)
        self.enable_knob()

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        """Keep the tokens with the highest scores, of those that have not left."""
        scores = perturb(self.score(inputs.hidden).squeeze(-1), inputs)
        before = inputs.previous
        there = torch.ones_like(scores) > 0 if before is None else before.plan.mask[..., 1]
        weights = (scores.new_ones(scores.shape), scores.sigmoid())
        if inputs.selection == "causal":
            assert self.knob is not None
            return gate_plan(there & (scores > -self.knob), None, scores, weights)
        # Shares fall with depth, so enough tokens are there.
        count = tokens_kept(self.spec.capacity, scores.shape[1])
        staying = scores.detach().masked_fill(~there, -torch.inf)
        return gate_plan(top_k_mask(staying, count), count, scores, weights)
