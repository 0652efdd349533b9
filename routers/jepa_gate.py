"""Define the JEPA-guided gate (arXiv:2604.17228).

It predicts the update of each path in a small latent space, and scores the predictions.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from bench.routing import (
    AuxLoss,
    Gate,
    GateEstimator,
    LayerTrace,
    RouterInput,
    RouterSpec,
    RoutingPlan,
    losses,
    register,
)


@register("jepa_gate", family="gate", paper="arXiv:2604.17228")
class JEPAGate(Gate):
    """G3: a score of the predicted latents of both paths.

    The latent is `z = E h`, the predictions are `z_a = P [z; e_a]` for a = cheap, full, and the
    score is `g [z_full, z_cheap, z_full - z_cheap]`. The predictions are aligned with targets
    `head . norm(y_a)` of the paths' updates. The head is random, orthonormal and never trained, so
    no second network is needed. The paper gives neither sizes nor layers of E, P and g. Ours are a
    linear map, a perceptron with one hidden layer of width `latent`, and a linear map. No gradient
    of the gate reaches the decoder, which is frozen in the paper.

    Args:
        latent: size of the latent space; 0 for a quarter of d_model.
        alignment: weight of the alignment loss; without it the predictions may collapse.
        targets: "executed" aligns the paths that ran anyway; "probe" runs both on a share of
            training tokens, which is charged, and keeps the update of the path that was not chosen
            out of the stream.
        probe_share: share of probed tokens.
        scale: outputs that the estimator "scale" scales; `bench.routing.learned_gate.Gate`
            describes this option and the following ones.
        estimator: source of the scores' gradient.
        estimator_options: free parameters of the estimator.
        utility: weight of the regression of the score on oracle utility.
        rank: weight of the pairwise ranking of scores by oracle utility.
        rank_delta: least difference of the utilities of a pair that counts, nats.
        oracle: policy of the layers after the fork of a utility label.
        flip_fraction: share of tokens that a fork flips.
    """

    pointwise = True
    head: Tensor

    def __init__(
        self,
        latent: int = 0,
        alignment: float = 1.0,
        targets: Literal["executed", "probe"] = "executed",
        probe_share: float = 0.1,
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
        if latent < 0:
            raise ValueError(
                f"latent is {latent}; it must be above 0, or 0 for a quarter of d_model."
            )
        if targets not in ("executed", "probe"):
            raise ValueError(f"targets is {targets!r}; allowed are 'executed', 'probe'.")
        if not 0 < probe_share <= 1:
            raise ValueError(f"probe_share is {probe_share}; it must be above 0 and at most 1.")
        # Probing runs both paths, and so training spends more than evaluation.
        self.latent, self.targets, self.probe_share = latent, targets, probe_share
        self.trains_dense = self.trains_dense or targets == "probe"
        self.aux_losses["jepa"] = AuxLoss(self._align, alignment, layers="mean")

    def build(self, spec: RouterSpec) -> None:
        """Make encoder, predictor, score and the fixed target head."""
        super().build(spec)
        size = self.latent or max(1, spec.d_model // 4)
        if size > spec.d_model:
            raise ValueError(
                f"latent is {size}; an orthonormal head allows at most d_model, {spec.d_model}."
            )
        self.encoder = nn.Linear(spec.d_model, size)
        self.actions = nn.Parameter(torch.randn(2, size))
        self.predictor = nn.Sequential(nn.Linear(2 * size, size), nn.GELU(), nn.Linear(size, size))
        self.score = nn.Linear(3 * size, 1)
        # A buffer: saved with the router, and never trained.
        self.register_buffer(
            "head", nn.init.orthogonal_(torch.empty(spec.d_model, size)).T.contiguous()
        )

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        """Predict both latents, score them, and upgrade the tokens with the highest scores."""
        # Both paths are predicted in one call: they are an axis of the input.
        # Without a gradient: the paper's decoder is frozen, and must not learn to be predictable.
        z = self.encoder(inputs.hidden.detach()).unsqueeze(2).expand(-1, -1, 2, -1)
        predicted: Tensor = self.predictor(
            torch.cat((z, self.actions.to(z.dtype).expand_as(z)), dim=-1)
        )
        cheap, full = predicted.unbind(2)
        scores = self.score(torch.cat((full, cheap, full - cheap), dim=-1)).squeeze(-1)
        plan = self.plan(scores, inputs)
        plan.extras["latent"] = predicted
        if self.targets == "probe" and inputs.selection == "topk":
            return self._probe(
                plan,
                torch.rand(scores.shape, generator=inputs.generator, device=scores.device)
                < self.probe_share,
            )
        return plan

    def _probe(self, plan: RoutingPlan, probed: Bool[Tensor, "batch seq"]) -> RoutingPlan:
        """Run both paths for the probed tokens; only the planned paths have weight."""
        weight = (
            plan.mask.to(torch.float32)
            if plan.weight is None
            else plan.weight.where(plan.mask, 0.0)
        )
        if self.estimator == "scale" and plan.weight is not None:
            # The oracle needs the weight of a path that the plan did not take.
            plan.extras["factor"] = plan.weight
        return replace(
            plan,
            mask=plan.mask | probed.unsqueeze(-1),
            weight=weight,
            counts=None,
            choice=plan.chosen,
        )

    def _align(self, trace: LayerTrace) -> Float[Tensor, ""]:
        return losses.jepa(trace, self.head)
