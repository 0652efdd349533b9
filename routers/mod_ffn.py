"""Define Mixture-of-Depths of the FFN alone: attention runs for every token."""

from collections.abc import Mapping
from typing import Any, Literal

from torch import nn

from bench.routing import (
    Gate,
    GateEstimator,
    Paths,
    RouterInput,
    RouterSpec,
    RoutingPlan,
    Site,
    register,
)


@register("mod_ffn", family="mixture_of_depths", paper="arXiv:2404.02258")
class ModFFN(Gate):
    """The FFN for the tokens with the highest `w . x`, nothing for the others.

    A frozen backbone has an FFN of the right size, so the factor on it must be 1 in evaluation: use
    the estimator "relaxed" or "straight_through" there.

    Args:
        estimator: source of the score's gradient; `bench.routing.learned_gate.Gate` describes
            them. "scale" multiplies the output of the FFN by the sigmoid of the score.
        estimator_options: free parameters of the estimator.
        layers: routed layers to use.
    """

    pointwise = True
    paths = Paths(Site.FFN, ("skip", "full"), base="skip")

    def __init__(
        self,
        estimator: GateEstimator = "scale",
        estimator_options: Mapping[str, Any] | None = None,
        layers: Literal["every", "other"] = "every",
    ) -> None:
        super().__init__(
            estimator,
            estimator_options,
            scale="full" if estimator == "scale" else "both",
            utility=0.0,
            rank=0.0,
            rank_delta=0.05,
            oracle="off_policy",
            flip_fraction=0.25,
        )
        if layers not in ("every", "other"):
            raise ValueError(f"layers is {layers!r}; allowed are 'every', 'other'.")
        self.layers = layers

    def build(self, spec: RouterSpec) -> None:
        """Make the score vector."""
        super().build(spec)
        self.score = nn.Linear(spec.d_model, 1)

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        """Run the FFN for the tokens with the highest scores."""
        return self.plan(self.score(inputs.hidden).squeeze(-1), inputs)
