"""Define the base of Mixture-of-Depths: the top tokens of a sequence, with a causal substitute.

Top-k over a sequence compares a token with later ones, so evaluation needs another choice. Section
3.5 of arXiv:2404.02258 has two, and a running quantile is a third. All have a threshold of their
own, and a knob that moves it: the knob is 0 at the threshold of the mechanism, and calibration
moves it to the budget.
"""

from dataclasses import replace
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bench.routing import losses
from bench.routing.capacity import gate_plan, upgrade
from bench.routing.contract import AuxLoss, LayerTrace, Router, RouterInput, RouterSpec, RoutingPlan
from bench.routing.paths import BLOCK_GATE

Causal = Literal["calibrated", "bce", "predictor", "quantile"]
MOMENTUM = 0.9
"""Momentum of the running quantile; the first steps have equal weight."""


class TopTokens(Router):
    """Base of routers that upgrade the tokens of a sequence with the highest scores.

    A subclass makes the parameters of its score in `make_score`, and passes its scores to `plan`.

    Args:
        capacity: share of tokens to upgrade; None to solve it from the budget.
        causal: choice of evaluation. "calibrated": scores above a threshold that held-out text
            fixes. "bce": the same, and a binary cross-entropy in training centres the scores at 0.
            "predictor": a perceptron without gradient into the model predicts the top-k choice
            (section 3.5). "quantile": scores above a running quantile of those in training.
        causal_weight: weight of the loss of "bce" or "predictor".
        width_ratio: hidden width of perceptrons as a share of d_model.

    Raises:
        ValueError: an option that is not allowed.
    """

    paths = BLOCK_GATE
    quantile: Tensor
    steps: Tensor

    def __init__(
        self, capacity: float | None, causal: Causal, causal_weight: float, width_ratio: float
    ) -> None:
        super().__init__()
        if causal not in get_args(Causal):
            raise ValueError(f"causal is {causal!r}; allowed are {', '.join(get_args(Causal))}.")
        if capacity is not None and not 0 < capacity <= 1:
            raise ValueError(f"capacity is {capacity}; it must be above 0 and at most 1.")
        if width_ratio <= 0:
            raise ValueError(f"width_ratio is {width_ratio}; it must be above 0.")
        self.capacity, self.causal, self.width_ratio = capacity, causal, width_ratio
        # At weight 0 unless it is asked for, so that a suite can weigh it.
        centre = causal_weight if causal == "bce" else 0.0
        self.aux_losses["centre"] = AuxLoss(losses.centre, centre, layers="mean")
        if causal == "predictor":
            self.aux_losses["predictor"] = AuxLoss(losses.predictor, causal_weight, layers="mean")

    def build(self, spec: RouterSpec) -> None:
        """Make the knob, the score, and the state of the causal choice."""
        super().build(spec)
        if self.causal == "predictor":
            # Registered before the score, because `init_scale` takes the last matrix. Drawn from
            # its own stream, so that rows with other mechanisms have the same score.
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(spec.seed ^ 1)
                self.predictor = self.perceptron()
        self.make_score()
        self.enable_knob()
        if self.causal == "quantile":
            self.register_buffer("quantile", torch.zeros(()))
            self.register_buffer("steps", torch.zeros(()))

    def make_score(self) -> None:
        """Make the parameters of the score."""

    def perceptron(self) -> nn.Sequential:
        """Make a perceptron with one output."""
        width = max(1, round(self.spec.d_model * self.width_ratio))
        return nn.Sequential(nn.Linear(self.spec.d_model, width), nn.GELU(), nn.Linear(width, 1))

    def read(self, inputs: RouterInput) -> Float[Tensor, "batch seq d_model"]:
        """Return the hidden states that score and predictor see."""
        return inputs.hidden

    def plan(
        self,
        scores: Float[Tensor, "batch seq"],
        inputs: RouterInput,
        weight: Float[Tensor, "batch seq"] | None,
    ) -> RoutingPlan:
        """Choose the top tokens in training, and by the causal mechanism in evaluation.

        Args:
            scores: scores to rank by in training, from `perturb`.
            inputs: inputs of the router.
            weight: factor on the output of the upgrade; None for 1.
        """
        extras: dict[str, Tensor] = {}
        if self.causal == "predictor":
            extras["predictor"] = self.predictor(self.read(inputs).detach()).squeeze(-1)
        if inputs.selection == "causal":
            # The scores of a plan are those it chooses by: above -knob.
            scores = extras.get("predictor", scores)
            scores = scores - self.quantile if self.causal == "quantile" else scores
        chosen, count = upgrade(scores, inputs, self.spec, self.knob)
        weights = None if weight is None else (weight.new_ones(weight.shape), weight)
        return replace(gate_plan(chosen, count, scores, weights), extras=extras)

    def after_step(self, trace: LayerTrace) -> None:
        """Move the quantile towards the quantile of the last batch."""
        if self.causal != "quantile":
            return
        assert trace.plan.scores is not None
        found = trace.plan.scores[..., 1].float().flatten().quantile(1 - self.spec.capacity)
        # A plain mean at first, so that the start value is forgotten at once.
        newest = (1 / (self.steps + 1)).clamp_min(1 - MOMENTUM)
        self.quantile.lerp_(found, newest)
        self.steps.add_(1)
