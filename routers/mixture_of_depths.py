"""Define Mixture-of-Depths (arXiv:2404.02258): a block for some tokens, none for the others."""

from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bench.routing import (
    Causal,
    RouterInput,
    RoutingPlan,
    TopTokens,
    hash_noise,
    perturb,
    register,
)

EDGE = 1e-6
"""Distance of uniform noise from 0 and 1, where the Gaussian quantile is infinite."""


@register("mod", family="mixture_of_depths", paper="arXiv:2404.02258")
class MixtureOfDepths(TopTokens):
    """A block, scaled by r, for the tokens with the highest `r = w . x`.

    Top-k over the sequence is used in training only. Evaluation compares a score with a threshold;
    `causal` says which score.

    Args:
        layers: routed layers to use; the paper's best choice is every other block.
        capacity: share of tokens in a block; the paper's best is 0.125. None to solve it from the
            budget; the cost of a given capacity follows from it, and the row is not ranked.
        gate: part of the block that r scales: all of its update, or the output of its FFN.
        score: "linear" as in the paper; "mlp", a perceptron; "gaussian", the paper's control, which
            draws r. `random` over blocks chooses alike, but scales by 1.
        read: hidden states that r is computed from: the "stream" itself as in the paper, or
            "normed" as the block reads them.
        causal: choice of evaluation. "calibrated": r above a threshold that held-out text fixes.
            "bce": the same, and a binary cross-entropy in training centres r at 0. "predictor": a
            perceptron without gradient into the model predicts the top-k choice (both section 3.5).
            "quantile": r above a running quantile of r in training.
        causal_weight: weight of the loss of "bce" or "predictor"; the paper states none.
        width_ratio: hidden width of the perceptrons as a share of d_model.

    Raises:
        ValueError: an option that is not allowed.
    """

    pointwise = True

    def __init__(
        self,
        layers: Literal["every", "other"] = "other",
        capacity: float | None = None,
        gate: Literal["block", "ffn_only"] = "block",
        score: Literal["linear", "mlp", "gaussian"] = "linear",
        read: Literal["normed", "stream"] = "normed",
        causal: Causal = "calibrated",
        causal_weight: float = 0.1,
        width_ratio: float = 0.25,
    ) -> None:
        super().__init__(capacity, causal, causal_weight, width_ratio)
        for name, value, allowed in (
            ("layers", layers, ("every", "other")),
            ("gate", gate, ("block", "ffn_only")),
            ("score", score, ("linear", "mlp", "gaussian")),
            ("read", read, ("normed", "stream")),
        ):
            if value not in allowed:
                said = ", ".join(map(repr, allowed))
                raise ValueError(f"{name} is {value!r}; allowed are {said}.")
        if score == "gaussian" and causal != "calibrated":
            raise ValueError(
                f"causal is {causal!r}; a Gaussian score is drawn, so it can be 'calibrated' alone."
            )
        self.layers, self.gate, self.kind = layers, gate, score
        if read == "stream":
            self.needs = frozenset({"stream"})

    def make_score(self) -> None:
        """Make the score vector or perceptron."""
        if self.kind == "linear":
            self.score = nn.Linear(self.spec.d_model, 1, bias=False)
        elif self.kind == "mlp":
            self.score = self.perceptron()

    def read(self, inputs: RouterInput) -> Float[Tensor, "batch seq d_model"]:
        """Return the stream or the normed hidden states."""
        return inputs.hidden if inputs.stream is None else inputs.stream

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        """Send the tokens with the highest scores through the block."""
        if self.kind == "gaussian":
            scores = self._drawn(inputs)
        else:
            scores = perturb(self.score(self.read(inputs)).squeeze(-1), inputs)
        # Scaled by r itself, as in the paper, so that r gets a gradient.
        plan = self.plan(scores, inputs, scores)
        return replace(plan, weighs="ffn") if self.gate == "ffn_only" else plan

    def _drawn(self, inputs: RouterInput) -> Float[Tensor, "batch seq"]:
        """Draw a standard Gaussian score for each token."""
        if inputs.selection == "topk":
            shape, device = inputs.tokens.shape, inputs.tokens.device
            return torch.randn(shape, generator=inputs.generator, device=device)
        # Evaluation hashes, so that a score is the same in any batch.
        uniform = hash_noise(self.spec, inputs).clamp(EDGE, 1 - EDGE)
        return 2**0.5 * torch.erfinv(2 * uniform - 1)
