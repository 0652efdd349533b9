"""Define the base of learned gates.

It turns one score per token into a plan, by any gradient estimator, and offers auxiliary losses.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from bench.routing import losses
from bench.routing.capacity import gate_plan, upgrade
from bench.routing.contract import (
    AuxLoss,
    LayerTrace,
    Made,
    OracleRequest,
    Router,
    RouterInput,
    RouterSpec,
    RoutingPlan,
)
from bench.routing.estimators import (
    Estimate,
    EstimatorOptions,
    gumbel,
    relaxed,
    st_gumbel,
    straight_through,
)
from bench.routing.paths import FFN_GATE
from bench.routing.scores import perturb

GateEstimator = Literal["scale", "relaxed", "straight_through", "st_gumbel", "reinforce", "soft"]
SOFT_SPEND = ("relaxed", "reinforce")
"""Estimators that choose no fixed number of tokens in training.

The `budget` penalty holds them to the capacity.
"""
BUDGET_WEIGHT = 10.0
USES_UTILITY: frozenset[Made] = frozenset({"utility"})


class Gate(Router):
    """A router over (cheap, full) with one score per token.

    A subclass computes the score and calls `plan`. In evaluation, tokens with a score above the
    calibrated threshold take the full path with weight 1. Exceptions are `scale`, which keeps its
    factors, and `soft`, which runs both paths.

    Args:
        estimator: source of the scores' gradient. "scale": top-k of each sequence, outputs scaled
            by probability; "relaxed": both paths mixed, harder with progress, held to the capacity
            by a penalty; "straight_through", "st_gumbel": top-k, the latter of scores with noise,
            with the gradient of the mixture; "reinforce": sampled, credited with the loss; "soft":
            both always, over budget.
        estimator_options: fields of `bench.routing.estimators.EstimatorOptions`, by name.
        scale: outputs that the estimator "scale" scales: "both" (full by p, cheap by 1 - p) or
            only "full".
        utility: weight of the regression of the score on oracle utility.
        rank: weight of the pairwise ranking of scores by oracle utility.
        rank_delta: least difference of the utilities of a pair that counts, nats.
        oracle: policy of the layers after the fork of a utility label: the full path everywhere,
            "off_policy", or routed, "on_policy".
        flip_fraction: share of tokens that a fork flips.

    Raises:
        ValueError: an option that is not allowed.
    """

    paths = FFN_GATE

    def __init__(
        self,
        estimator: GateEstimator,
        estimator_options: Mapping[str, Any] | None,
        scale: Literal["both", "full"],
        utility: float,
        rank: float,
        rank_delta: float,
        oracle: Literal["off_policy", "on_policy"],
        flip_fraction: float,
    ) -> None:
        super().__init__()
        if estimator not in get_args(GateEstimator):
            raise ValueError(
                f"estimator is {estimator!r}; allowed are {', '.join(get_args(GateEstimator))}."
            )
        if scale not in ("both", "full"):
            raise ValueError(f"scale is {scale!r}; allowed are 'both', 'full'.")
        if scale == "full" and estimator != "scale":
            raise ValueError(
                f"scale is {scale!r} and estimator {estimator!r}; only the estimator 'scale' "
                "scales outputs. Leave scale out."
            )
        self.estimator, self.scale = estimator, scale
        self.estimation = EstimatorOptions.read(estimator_options, estimator)
        self.oracle = OracleRequest(oracle, flip_fraction)
        if utility or rank:
            self.needs = self.needs | {"utility"}
        self.aux_losses["utility"] = AuxLoss(losses.utility, utility, USES_UTILITY, layers="mean")
        self.aux_losses["rank"] = AuxLoss(
            partial(losses.rank, delta=rank_delta), rank, USES_UTILITY, layers="mean"
        )
        self._prepare()

    def _prepare(self) -> None:
        """Declare the estimator's needs and losses to the harness."""
        # Without top-k, a step of training may spend more than evaluation does.
        straight = self.estimator in ("straight_through", "st_gumbel")
        self.trains_dense = self.estimator in ("relaxed", "soft", "reinforce") or (
            straight and self.estimation.dense
        )
        # Offered to all others at weight 0, so that a suite can weigh it.
        if self.estimator not in ("scale", "soft"):
            self.aux_losses["budget"] = AuxLoss(
                self._budget,
                BUDGET_WEIGHT if self.estimator in SOFT_SPEND else 0.0,
                layers="mean",
            )
        if self.estimator == "reinforce":
            self.needs = self.needs | {"token_loss"}
            kind = self.estimation.credit
            self.aux_losses["policy_gradient"] = AuxLoss(
                partial(losses.policy_gradient, kind=kind), 0.01, layers="mean"
            )
            self.aux_losses["baseline"] = AuxLoss(
                partial(losses.baseline, kind=kind), 0.01, layers="mean"
            )
            self.aux_losses["entropy"] = AuxLoss(losses.entropy, 5e-4, layers="mean")

    def _budget(self, trace: LayerTrace) -> Float[Tensor, ""]:
        return losses.budget(trace, self.spec.capacity)

    def build(self, spec: RouterSpec) -> None:
        """Make the knob and the parameters that the estimator needs besides the score."""
        super().build(spec)
        if self.estimator != "soft":
            self.enable_knob()
        if self.estimator == "reinforce":
            self.baseline = nn.Linear(spec.d_model, 1)

    def plan(self, scores: Float[Tensor, "batch seq"], inputs: RouterInput) -> RoutingPlan:
        """Turn the scores into a plan, in training by the estimator."""
        scores = perturb(scores, inputs)
        if self.estimator == "scale":
            chosen, count = upgrade(scores, inputs, self.spec, self.knob)
            p = scores.sigmoid()
            base = 1 - p if self.scale == "both" else p.new_ones(p.shape)
            return gate_plan(chosen, count, scores, (base, p))
        # A softmax over (0, s) is a sigmoid of s.
        logits = torch.stack((torch.zeros_like(scores), scores), dim=-1)
        if self.estimator == "soft":
            return RoutingPlan(
                torch.ones_like(logits, dtype=torch.bool), logits.softmax(-1), logits
            )
        if inputs.selection == "causal":
            return gate_plan(*upgrade(scores, inputs, self.spec, self.knob), scores)
        return self._estimate(logits, inputs)

    def _estimate(
        self, logits: Float[Tensor, "batch seq path"], inputs: RouterInput
    ) -> RoutingPlan:
        if self.estimator == "reinforce":
            p = logits.softmax(-1)
            # The gradient comes through log p in the loss, so the outputs have no weight.
            taken = torch.rand(p.shape[:2], generator=inputs.generator, device=p.device) < p[..., 1]
            extras = {
                "upgrade": p[..., 1],
                "baseline": self.baseline(inputs.hidden.detach()).squeeze(-1),
            }
            return RoutingPlan(torch.stack((~taken, taken), dim=-1), None, logits, extras=extras)
        (mask, weight), p, count, chosen = self._weighted(logits, inputs)
        # The dispatcher need not wait for the device if the counts are known.
        counts = (
            (mask.shape[1],) * 2
            if self.trains_dense
            else None
            if count is None
            else (mask.shape[1] - count, count)
        )
        return RoutingPlan(mask, weight, logits, counts, {"upgrade": p[..., 1]}, choice=chosen)

    def _weighted(
        self, logits: Float[Tensor, "batch seq path"], inputs: RouterInput
    ) -> tuple[Estimate, Tensor, int | None, Tensor | None]:
        """Return the choice to run, its probabilities, its number of upgrades, and the hard choice.

        The budget penalty holds the mean of the probabilities.
        """
        options = self.estimation
        if self.estimator == "straight_through":
            chosen, count = self._chosen(logits, inputs)
            p = logits.softmax(-1)
            return straight_through(p, chosen, options.dense), p, count, chosen
        temperature = options.temperature_at(self.estimator, inputs.progress)
        if self.estimator == "relaxed":
            mask, p = relaxed(logits, temperature)
            # `relaxed` mixes both paths, and so always has weights.
            assert p is not None
            return (mask, p), p, None, None
        perturbed = logits + gumbel(logits, inputs.generator)
        chosen, count = self._chosen(perturbed, inputs)
        return (
            st_gumbel(perturbed, chosen, temperature, options.dense),
            logits.softmax(-1),
            count,
            chosen,
        )

    def _chosen(
        self, logits: Float[Tensor, "batch seq path"], inputs: RouterInput
    ) -> tuple[Bool[Tensor, "batch seq path"], int | None]:
        chosen, count = upgrade(logits[..., 1] - logits[..., 0], inputs, self.spec, self.knob)
        return torch.stack((~chosen, chosen), dim=-1), count
