"""Routers that cheat nobody and still break a rule."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from bench.routing.capacity import gate_plan
from bench.routing.contract import (
    AuxLoss,
    LayerTrace,
    Router,
    RouterInput,
    RouterSpec,
    RoutingPlan,
)
from bench.routing.registry import register
from routers.gates import MLPGate


@register("option_without_default", family="cheater")
class OptionWithoutDefault(MLPGate):
    """Cannot be built blind."""

    def __init__(self, width: int) -> None:
        super().__init__(width_ratio=width / 32)


@register("weight_not_finite", family="cheater")
class WeightNotFinite(MLPGate):
    """Divides by a score that may be 0."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        plan = super().forward(inputs)
        assert plan.weight is not None
        plan.weight = plan.weight / (inputs.tokens > 0).unsqueeze(-1)
        return plan


@register("mask_of_numbers", family="cheater")
class MaskOfNumbers(MLPGate):
    """Gives a mask of type uint8, which arithmetic takes for numbers."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        plan = super().forward(inputs)
        plan.mask = plan.mask.to(torch.uint8)
        return plan


@register("leaves_tokens_out", family="cheater")
class LeavesTokensOut(MLPGate):
    """Gives the first token no path."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        plan = super().forward(inputs)
        return RoutingPlan(
            plan.mask & (inputs.positions > 0).unsqueeze(-1), plan.weight, plan.scores
        )


@register("spends_more_in_training", family="cheater")
class SpendsMoreInTraining(MLPGate):
    """Upgrades three tokens of every sequence beyond its capacity."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        plan = super().forward(inputs)
        if inputs.selection == "causal":
            return plan
        assert plan.scores is not None
        return gate_plan(plan.mask[..., 1] | (inputs.positions < 8), None, plan.scores[..., 1])


@register("one_length_only", family="cheater")
class OneLengthOnly(MLPGate):
    """Has a table of the positions seen in training."""

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.place = nn.Embedding(32, spec.d_model)

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        plan = super().forward(inputs)
        assert plan.weight is not None
        plan.weight = plan.weight + self.place(inputs.positions).mean(-1, keepdim=True)
        return plan


@register("knob_reversed", family="cheater")
class KnobReversed(MLPGate):
    """Spends less as its knob rises."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        plan = super().forward(inputs)
        if inputs.selection == "topk" or self.knob is None or plan.scores is None:
            return plan
        return gate_plan(plan.scores[..., 1] > self.knob, None, plan.scores[..., 1])


@register("hashes_in_floating_point", family="cheater")
class HashesInFloatingPoint(MLPGate):
    """Chooses by digits of the hidden state that bfloat16 does not have."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        scores = (
            self.score(nn.functional.gelu(self.hidden(inputs.hidden))).squeeze(-1) * 1000
        ).frac()
        chosen = scores > 0 if self.knob is None else scores > -self.knob
        return gate_plan(chosen, None, scores)


@register("drawn_from_numpy", family="cheater")
class DrawnFromNumpy(MLPGate):
    """Draws its start where no seed reaches."""

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.register_buffer("offset", torch.from_numpy(np.random.default_rng().standard_normal(1)))


@register("random_from_nowhere", family="cheater")
class RandomFromNowhere(MLPGate):
    """Draws from the global generator instead of the given one."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        plan = super().forward(inputs)
        assert plan.weight is not None
        plan.weight = plan.weight * torch.rand(plan.weight.shape)
        return plan


@register("spends_more_in_the_middle", family="cheater")
class SpendsMoreInTheMiddle(MLPGate):
    """Upgrades every token while a tenth of the training lasts."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        plan = super().forward(inputs)
        if inputs.selection == "causal" or not 0.4 < inputs.progress < 0.5:
            return plan
        assert plan.scores is not None
        return gate_plan(inputs.positions >= 0, None, plan.scores[..., 1])


@register("seeds_everything", family="cheater")
class SeedsEverything(MLPGate):
    """Makes itself reproducible at the cost of everybody else."""

    def after_step(self, trace: LayerTrace) -> None:
        torch.manual_seed(0)


@register("spends_at_will", family="cheater")
class SpendsAtWill(Router):
    """Upgrades every third token, whatever the budget, and has no knob."""

    paths = MLPGate.paths

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        return gate_plan(inputs.positions % 3 == 0, None)


@register("quantile_of_scores", family="cheater")
class QuantileOfScores(MLPGate):
    """Takes a quantile of scores, which torch has not in bfloat16."""

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.register_buffer("middle", torch.zeros(()))

    def after_step(self, trace: LayerTrace) -> None:
        assert trace.plan.scores is not None
        self.middle.copy_(trace.plan.scores.quantile(0.5))


@register("score_without_gradient", family="cheater")
class ScoreWithoutGradient(MLPGate):
    """Has parameters that no loss reaches."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        plan = super().forward(inputs)
        return RoutingPlan(plan.mask, None, None, plan.counts)


@register("gradient_reversed", family="cheater")
class GradientReversed(MLPGate):
    """Learns to send each token along the worse path."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        plan = super().forward(inputs)
        assert plan.weight is not None
        plan.weight = 2 * plan.weight.detach() - plan.weight
        return plan


@register("typo_in_build", family="cheater")
class TypoInBuild(MLPGate):
    """Misspells a name where parameters are made."""

    def build(self, spec: RouterSpec) -> None:
        super().build(spce)  # pyright: ignore[reportUndefinedVariable]


@register("typo_in_forward", family="cheater")
class TypoInForward(MLPGate):
    """Misspells a name where it decides."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        return super().forward(inptus)  # pyright: ignore[reportUndefinedVariable]


@register("typo_in_loss", family="cheater")
class TypoInLoss(MLPGate):
    """Misspells a name in an auxiliary loss."""

    def __init__(self) -> None:
        super().__init__()
        self.aux_losses["extra"] = AuxLoss(self._loss, 0.1)

    def _loss(self, trace: LayerTrace) -> Tensor:
        return trace.plan.wieght.mean()  # pyright: ignore


@register("typo_after_step", family="cheater")
class TypoAfterStep(MLPGate):
    """Misspells a name where it updates itself."""

    def after_step(self, trace: LayerTrace) -> None:
        self.count += 1  # pyright: ignore


@register("unpriced_in_loss", family="cheater")
class UnpricedInLoss(MLPGate):
    """Uses an operation in a loss that has no price."""

    def __init__(self) -> None:
        super().__init__()
        self.aux_losses["extra"] = AuxLoss(self._loss, 0.1)

    def _loss(self, trace: LayerTrace) -> Tensor:
        return torch.linalg.svdvals(trace.inputs.hidden[0]).sum()


@register("unpriced_after_step", family="cheater")
class UnpricedAfterStep(MLPGate):
    """Uses an operation after a step that has no price."""

    def after_step(self, trace: LayerTrace) -> None:
        torch.fft.rfft(trace.inputs.hidden)


@register("pointwise_by_mistake", family="cheater")
class PointwiseByMistake(MLPGate):
    """Declares itself pointwise, and scores a token by the mean of those before it."""

    pointwise = True

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        count = torch.arange(1, inputs.hidden.shape[1] + 1).unsqueeze(1)
        return super().forward(replace(inputs, hidden=inputs.hidden.cumsum(1) / count))


@register("no_plan", family="cheater")
class NoPlan(MLPGate):
    """Forgets to return its plan."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        super().forward(inputs)  # pyright: ignore
