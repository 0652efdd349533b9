"""Designs from papers that the bench does not ship, as a stranger would write them."""

import torch
from torch import Tensor, nn

from bench.routing.contract import AuxLoss, LayerTrace, Router, RouterInput, RouterSpec, RoutingPlan
from bench.routing.paths import experts

EXPERTS = 8


class _Scored(Router):
    """A linear score for each expert."""

    paths, mean_experts = experts(EXPERTS), 2.0

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.score = nn.Linear(spec.d_model, EXPERTS, bias=False)
        nn.init.normal_(self.score.weight, std=spec.d_model**-0.5)

    def after_step(self, trace: LayerTrace) -> None:
        """Most have nothing to do after a step."""


def _marked(chosen: Tensor, like: Tensor) -> Tensor:
    return torch.zeros_like(like, dtype=torch.bool).scatter(-1, chosen, True)


class SigmoidWithBias(_Scored):
    """DeepSeek-V3 (arXiv:2412.19437, section 2.1.2): sigmoid affinities, a bias for the choice."""

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.register_buffer("bias", torch.zeros(EXPERTS))

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        scores = self.score(inputs.hidden)
        affinity = scores.sigmoid()
        mask = _marked((affinity + self.get_buffer("bias")).topk(2).indices, scores)
        kept = affinity * mask
        return RoutingPlan(mask, kept / kept.sum(-1, keepdim=True), scores)

    def after_step(self, trace: LayerTrace) -> None:
        load = trace.plan.mask.float().mean((0, 1))
        self.get_buffer("bias").add_(0.001 * (load.mean() - load).sign())


class ExpertThreshold(_Scored):
    """Expert threshold routing: each expert takes the tokens above a moving quantile."""

    mean_experts, allows_none = 1.0, True

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.register_buffer("quantile", torch.zeros(EXPERTS))
        self.register_buffer("knob", torch.zeros(EXPERTS))

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        assert self.knob is not None
        scores = self.score(inputs.hidden)
        limit = self.get_buffer("quantile") if inputs.selection == "topk" else -self.knob
        return RoutingPlan(scores > limit, scores.sigmoid(), scores)

    def after_step(self, trace: LayerTrace) -> None:
        assert trace.plan.scores is not None
        ordered = trace.plan.scores.flatten(0, 1).sort(dim=0).values
        found = ordered[int(len(ordered) * (1 - 1 / EXPERTS))]
        self.get_buffer("quantile").lerp_(found, 0.1)


class SharedExpert(_Scored):
    """DeepSeekMoE (arXiv:2401.06066, section 3.2): the first expert always runs, with weight 1."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        scores = self.score(inputs.hidden)
        routed = scores[..., 1:].softmax(-1)
        mask = _marked(routed.topk(1).indices + 1, scores)
        mask[..., 0] = True
        return RoutingPlan(mask, torch.cat((torch.ones_like(routed[..., :1]), routed), -1), scores)


class ReMoE(_Scored):
    """ReMoE (arXiv:2412.14711): a rectifier chooses and weighs, its sparsity held by a controller.

    The coefficient of the penalty grows by 1.2 while more than the wanted share is active.
    """

    mean_experts, allows_none = 1.0, True

    def __init__(self) -> None:
        super().__init__()
        self.aux_losses = {"sparsity": AuxLoss(self.penalty, 1.0)}

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.register_buffer("coefficient", torch.tensor(1e-8))
        self.enable_knob()

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        assert self.knob is not None
        scores = self.score(inputs.hidden)
        weight = (scores + self.knob if inputs.selection == "causal" else scores).relu()
        return RoutingPlan(weight > 0, weight, scores)

    def penalty(self, trace: LayerTrace) -> Tensor:
        assert trace.plan.weight is not None
        return self.get_buffer("coefficient") * trace.plan.weight.sum(-1).mean()

    def after_step(self, trace: LayerTrace) -> None:
        sparsity = 1 - trace.plan.mask.float().mean()
        wanted = 1 - self.mean_experts / EXPERTS
        self.get_buffer("coefficient").mul_(1.2 ** (wanted - sparsity).sign())


class Untrainable(_Scored):
    """Chooses by a hash of the hidden state, which its parameters do not reach."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        scores = self.score(inputs.hidden)
        with torch.no_grad():
            mask = _marked(scores.topk(2).indices, scores)
        return RoutingPlan(mask, None, scores + 0 * scores.sum())


class PushedAway(_Scored):
    """Gets the gradient of the loss with the wrong sign."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        scores = self.score(inputs.hidden)
        mask = _marked(scores.topk(2).indices, scores)
        weight = scores.softmax(-1)
        return RoutingPlan(mask, 2 * weight.detach() - weight, scores)


PUBLISHED: tuple[type[Router], ...] = (SigmoidWithBias, ExpertThreshold, SharedExpert, ReMoE)
UNABLE: tuple[type[Router], ...] = (Untrainable, PushedAway)
