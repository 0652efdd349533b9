"""Throwaway routers, one of each kind that the literature has and the bench does not ship, and the
shipped families of experts.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from bench.rng import generator
from bench.routing.capacity import gate_plan, upgrade
from bench.routing.contract import (
    AuxLoss,
    LayerTrace,
    Router,
    RouterInput,
    RouterSpec,
    RoutingPlan,
    TrainStatistics,
)
from bench.routing.load_routers import find
from bench.routing.paths import BLOCK_GATE, FFN_GATE, experts
from bench.routing.scores import hash_noise


class Linear(Router):
    """A linear score for each path; the kinds below differ in their use of it."""

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.score = nn.Linear(spec.d_model, len(self.paths.names), bias=False)
        nn.init.normal_(self.score.weight, generator=generator(spec.layer, "score"))


class Relaxed(Linear):
    """Both paths mixed in training, harder as training goes on; one of them in evaluation."""

    paths, trains_dense = FFN_GATE, True

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        scores = self.score(inputs.hidden)
        p = (scores / (1.1 - inputs.progress)).softmax(-1)
        hard = torch.zeros_like(p, dtype=torch.bool).scatter(2, p.argmax(-1, keepdim=True), True)
        mask = torch.ones_like(hard) if inputs.selection == "topk" else hard
        return RoutingPlan(mask, p if inputs.selection == "topk" else None, scores)


class StraightThrough(Linear):
    """Hard weights forward, the soft ones' gradient backward: weight 0 where both paths run."""

    paths, trains_dense = FFN_GATE, True

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        scores = self.score(inputs.hidden)
        p = scores.softmax(-1)
        hard = torch.zeros_like(p).scatter(2, p.argmax(-1, keepdim=True), 1.0)
        if inputs.selection == "causal":
            return RoutingPlan(hard.bool(), None, scores)
        return RoutingPlan(torch.ones_like(hard, dtype=torch.bool), hard + p - p.detach(), scores)


class Gumbel(Linear):
    """Noise from the harness's generator in training, none in evaluation."""

    paths = experts(4)

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        scores = self.score(inputs.hidden)
        uniform = (
            torch.rand(scores.shape, generator=inputs.generator)
            if inputs.selection == "topk"
            else torch.full_like(scores, 0.5)
        )
        p = (scores - (-uniform.log()).log()).softmax(-1)
        mask = torch.zeros_like(p, dtype=torch.bool).scatter(2, p.argmax(-1, keepdim=True), True)
        return RoutingPlan(mask, p, scores)


class Reinforce(Linear):
    """The sampled choice is credited with the loss of its token, against a baseline."""

    paths, needs = FFN_GATE, frozenset({"token_loss"})

    def __init__(self) -> None:
        super().__init__()
        self.aux_losses = {"reinforce": AuxLoss(self.credit, 0.01)}

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.register_buffer("baseline", torch.zeros(()))

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        scores = self.score(inputs.hidden)
        p = scores.softmax(-1)[..., 1]
        noise = (
            torch.rand(p.shape, generator=inputs.generator)
            if inputs.selection == "topk"
            else hash_noise(self.spec, inputs)
        )
        return RoutingPlan(gate_plan(noise < p, None).mask, None, scores)

    def credit(self, trace: LayerTrace) -> Tensor:
        assert trace.plan.scores is not None
        assert trace.token_loss is not None
        log_p = (trace.plan.scores.log_softmax(-1) * trace.plan.mask).sum(-1)
        return (log_p * (trace.token_loss - self.get_buffer("baseline"))).mean()

    def after_step(self, trace: LayerTrace) -> None:
        assert trace.token_loss is not None
        self.get_buffer("baseline").lerp_(trace.token_loss.mean(), 0.1)


class FollowsLayerBelow(Linear):
    """Reads the plan and the scores of the routed site before it."""

    paths = FFN_GATE

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.enable_knob()

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        scores = self.score(inputs.hidden)[..., 1]
        if inputs.previous is not None and inputs.previous.plan.scores is not None:
            scores = (
                scores
                + inputs.previous.plan.scores[..., 1]
                + inputs.previous.update.square().mean(-1)
            )
        chosen, count = upgrade(scores, inputs, self.spec, self.knob)
        return gate_plan(chosen, count, scores, (1 - scores.sigmoid(), scores.sigmoid()))


class Surprisal(Router):
    """A heuristic from counts over the training split."""

    paths = FFN_GATE

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.register_buffer("surprisal", torch.zeros(spec.vocab_size))
        self.enable_knob()

    def fit(self, statistics: TrainStatistics) -> None:
        counts = statistics.unigram.float() + 1
        self.get_buffer("surprisal").copy_(-(counts / counts.sum()).log())

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        chosen, count = upgrade(
            self.get_buffer("surprisal")[inputs.tokens], inputs, self.spec, self.knob
        )
        return gate_plan(chosen, count)


class Tagged(Router):
    """The domain's own expert: a router with side information."""

    paths, needs = experts(3), frozenset({"tags"})

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        assert inputs.tags is not None
        return RoutingPlan(nn.functional.one_hot(inputs.tags, 3).bool())


class Supervised(Router):
    """Partial supervision: cross-entropy of a wrapped router's scores against labels where there
    are any.
    """

    def __init__(self, inner: Router) -> None:
        super().__init__()
        self.inner, self.paths = inner, inner.paths
        self.aux_losses = {**inner.aux_losses, "supervised": AuxLoss(self.agree, 1.0)}

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.inner.build(spec)
        self.knob = self.inner.knob  # the same buffer: setting one sets both

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        return self.inner(inputs)

    def agree(self, trace: LayerTrace) -> Tensor:
        assert trace.plan.scores is not None
        assert trace.labels is not None
        return nn.functional.cross_entropy(
            trace.plan.scores.flatten(0, 1), trace.labels.flatten(), ignore_index=-100
        )


class Depth(Linear):
    """The block half of staged MoDE."""

    paths = BLOCK_GATE

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        scores = self.score(inputs.hidden)[..., 1]
        chosen, count = upgrade(scores, inputs, self.spec, None)
        return gate_plan(chosen, count, scores, (torch.ones_like(scores), scores))


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


SHIPPED = (
    *("deepseek_v3", "expert_choice", "expert_threshold", "null_experts", "quantile_balancing"),
    *("remoe", "top_p"),
)
FAMILIES: dict[str, Callable[[], list[Router]]] = {
    "relaxed": lambda: [Relaxed()],
    "straight_through": lambda: [StraightThrough()],
    "gumbel": lambda: [Gumbel()],
    "reinforce": lambda: [Reinforce()],
    "follows": lambda: [FollowsLayerBelow()],
    "surprisal": lambda: [Surprisal()],
    "tagged": lambda: [Tagged()],
    "supervised": lambda: [Supervised(FollowsLayerBelow())],
    "merged": lambda: [Merged()],
    "staged_mode": lambda: [Depth(), find("top2_moe").make({})],
    **{name: partial(lambda name: [find(name).make({})], name) for name in SHIPPED},
}
