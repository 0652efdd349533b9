"""Throwaway routers, those that choose among experts or merge them. None of them is shipped."""

import torch
from torch import Tensor, nn

from bench.rng import generator
from bench.routing.contract import AuxLoss, LayerTrace, Router, RouterInput, RouterSpec, RoutingPlan
from bench.routing.paths import Paths, Site, experts


class Linear(Router):
    """A linear score for each path; the kinds below differ in what they make of it."""

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.score = nn.Linear(spec.d_model, len(self.paths.names), bias=False)
        nn.init.normal_(self.score.weight, generator=generator(spec.layer, "score"))


class ExpertThreshold(Linear):
    """Each expert takes the tokens above its own threshold, a moving quantile in training and a
    calibrated one in evaluation.
    """

    paths, allows_none = experts(4), True

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.register_buffer("quantile", torch.zeros(4))
        self.register_buffer("knob", torch.zeros(4))

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        scores = self.score(inputs.hidden)
        assert self.knob is not None
        limit = self.get_buffer("quantile") if inputs.selection == "topk" else -self.knob
        return RoutingPlan(scores > limit, scores.sigmoid(), scores)

    def after_step(self, trace: LayerTrace) -> None:
        assert trace.plan.scores is not None
        found = trace.plan.scores.flatten(0, 1).quantile(0.75, dim=0)
        self.get_buffer("quantile").lerp_(found, 0.5)


class ExpertChoice(Linear):
    """Each expert picks its tokens of the sequence in training.

    Static counts, tokens without an expert.
    """

    paths, allows_none = experts(4), True

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        scores = self.score(inputs.hidden)
        if inputs.selection == "causal":
            return RoutingPlan(scores > 0, scores.sigmoid(), scores)
        count = inputs.tokens.shape[1] // 4
        mask = torch.zeros_like(scores, dtype=torch.bool).scatter(
            1, scores.topk(count, dim=1).indices, True
        )
        return RoutingPlan(mask, scores.sigmoid(), scores, counts=(count,) * 4)


class ReLU(Linear):
    """ReMoE: what the rectifier leaves is both choice and weight.

    The pressure on it adapts in a buffer.
    """

    paths, allows_none = experts(4), True

    def __init__(self) -> None:
        super().__init__()
        self.aux_losses = {"sparsity": AuxLoss(self.pressure, 1.0)}

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.register_buffer("coefficient", torch.tensor(1e-3))
        self.enable_knob()

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        assert self.knob is not None
        scores = self.score(inputs.hidden)
        weight = (scores + (self.knob if inputs.selection == "causal" else 0.0)).relu()
        return RoutingPlan(weight > 0, weight, scores)

    def pressure(self, trace: LayerTrace) -> Tensor:
        assert trace.plan.weight is not None
        return self.get_buffer("coefficient") * trace.plan.weight.sum(-1).mean()

    def after_step(self, trace: LayerTrace) -> None:
        much = trace.plan.mask.float().mean() > 0.25
        self.get_buffer("coefficient").mul_(torch.where(much, 1.2, 1 / 1.2))


class TopP(Linear):
    """As many experts as it takes to reach a probability: the knob is p."""

    paths = experts(4)

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.enable_knob()

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        assert self.knob is not None
        scores = self.score(inputs.hidden)
        p, order = scores.softmax(-1).sort(descending=True)
        needed = p.cumsum(-1) - p < (0.4 if inputs.selection == "topk" else self.knob.clamp(1e-6))
        mask = torch.zeros_like(scores, dtype=torch.bool).scatter(2, order, needed)
        return RoutingPlan(mask, scores.softmax(-1), scores)


class NullExperts(Linear):
    """AdaMoE: some of the experts do nothing and cost nothing."""

    paths = Paths(Site.FFN, ("expert0", "expert1", "skip"))

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        scores = self.score(inputs.hidden)
        mask = torch.zeros_like(scores, dtype=torch.bool).scatter(2, scores.topk(2).indices, True)
        return RoutingPlan(mask, scores.softmax(-1) * mask, scores)


class BiasBalanced(Linear):
    """Loss-free balance: choose by score and bias, weigh by score."""

    paths, mean_experts = experts(4), 2.0

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.register_buffer("bias", torch.zeros(4))

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        scores = self.score(inputs.hidden)
        chosen = (scores + self.get_buffer("bias")).topk(2).indices
        return RoutingPlan(
            torch.zeros_like(scores, dtype=torch.bool).scatter(2, chosen, True),
            scores.sigmoid(),
            scores,
        )

    def after_step(self, trace: LayerTrace) -> None:
        load = trace.plan.mask.float().mean((0, 1))
        self.get_buffer("bias").add_(0.001 * (load.mean() - load).sign())


class Merged(Linear):
    """SMEAR and Lory: experts averaged into one for each segment, by the mean of the segment
    before; evenly in the first.
    """

    paths = experts(4, segment=6)

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        before = [part.mean(1) for part in inputs.hidden.split(6, dim=1)[:-1]]
        scores = self.score(torch.stack([torch.zeros_like(inputs.hidden[:, 0]), *before], dim=1))
        marked = scores.argmax(-1).repeat_interleave(6, dim=1)[:, : inputs.tokens.shape[1]]
        return RoutingPlan(nn.functional.one_hot(marked, 4).bool(), merge=scores.softmax(-1))
