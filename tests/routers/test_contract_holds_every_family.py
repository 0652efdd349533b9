"""A throwaway router of each kind that the literature has, run in the decoder: forward, backward, and charged for its plan.

None of them is shipped; they show that the contract needs no change for the family to be added.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bench.backbone.decoder import Decoder
from bench.contract import (
    BLOCK_GATE,
    FFN_GATE,
    AuxLoss,
    LayerTrace,
    Paths,
    Router,
    RouterInput,
    RouterSpec,
    RoutingPlan,
    Selection,
    Site,
    TrainStatistics,
    experts,
)
from bench.flops.ledger import Ledger, path_counts
from bench.rng import generator
from bench.select import gate_plan, hash_noise, upgrade
from tests.small import CONFIG, SEQ_LEN, run_of, tokens, trained_like


class Linear(Router):
    """A linear score for each path; the kinds below differ in what they make of it."""

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
        uniform = torch.rand(scores.shape, generator=inputs.generator) if inputs.selection == "topk" else torch.full_like(scores, 0.5)
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
        noise = torch.rand(p.shape, generator=inputs.generator) if inputs.selection == "topk" else hash_noise(self.spec, inputs)
        return RoutingPlan(gate_plan(noise < p, None).mask, None, scores)

    def credit(self, trace: LayerTrace) -> Tensor:
        assert trace.plan.scores is not None
        assert trace.token_loss is not None
        log_p = (trace.plan.scores.log_softmax(-1) * trace.plan.mask).sum(-1)
        return (log_p * (trace.token_loss - self.get_buffer("baseline"))).mean()

    def after_step(self, trace: LayerTrace) -> None:
        assert trace.token_loss is not None
        self.get_buffer("baseline").lerp_(trace.token_loss.mean(), 0.1)


class ExpertThreshold(Linear):
    """Each expert takes the tokens above its own threshold, a moving quantile in training and a calibrated one in evaluation."""

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
    """Each expert picks its tokens of the sequence in training: static counts, tokens without an expert."""

    paths, allows_none = experts(4), True

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        scores = self.score(inputs.hidden)
        if inputs.selection == "causal":
            return RoutingPlan(scores > 0, scores.sigmoid(), scores)
        count = inputs.tokens.shape[1] // 4
        mask = torch.zeros_like(scores, dtype=torch.bool).scatter(1, scores.topk(count, dim=1).indices, True)
        return RoutingPlan(mask, scores.sigmoid(), scores, counts=(count,) * 4)


class ReLU(Linear):
    """ReMoE: what the rectifier leaves is both choice and weight; the pressure on it adapts in a buffer."""

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
        return RoutingPlan(torch.zeros_like(scores, dtype=torch.bool).scatter(2, chosen, True), scores.sigmoid(), scores)

    def after_step(self, trace: LayerTrace) -> None:
        load = trace.plan.mask.float().mean((0, 1))
        self.get_buffer("bias").add_(0.001 * (load.mean() - load).sign())


class FollowsLayerBelow(Linear):
    """Reads the plan and the scores of the routed site before it."""

    paths = FFN_GATE

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.enable_knob()

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        scores = self.score(inputs.hidden)[..., 1]
        if inputs.previous is not None and inputs.previous.plan.scores is not None:
            scores = scores + inputs.previous.plan.scores[..., 1] + inputs.previous.update.square().mean(-1)
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
        chosen, count = upgrade(self.get_buffer("surprisal")[inputs.tokens], inputs, self.spec, self.knob)
        return gate_plan(chosen, count)


class Tagged(Router):
    """The domain's own expert: a router with side information."""

    paths, needs = experts(3), frozenset({"tags"})

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        assert inputs.tags is not None
        return RoutingPlan(nn.functional.one_hot(inputs.tags, 3).bool())


class Supervised(Router):
    """Partial supervision: cross-entropy of a wrapped router's scores against labels where there are any."""

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
        return nn.functional.cross_entropy(trace.plan.scores.flatten(0, 1), trace.labels.flatten(), ignore_index=-100)


class Merged(Linear):
    """SMEAR and Lory: experts averaged into one for each segment, by the mean of the segment before; evenly in the first."""

    paths = experts(4, segment=6)

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        before = [part.mean(1) for part in inputs.hidden.split(6, dim=1)[:-1]]
        scores = self.score(torch.stack([torch.zeros_like(inputs.hidden[:, 0]), *before], dim=1))
        marked = scores.argmax(-1).repeat_interleave(6, dim=1)[:, : inputs.tokens.shape[1]]
        return RoutingPlan(nn.functional.one_hot(marked, 4).bool(), merge=scores.softmax(-1))


class Depth(Linear):
    """The block half of staged MoDE."""

    paths = BLOCK_GATE

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        scores = self.score(inputs.hidden)[..., 1]
        chosen, count = upgrade(scores, inputs, self.spec, None)
        return gate_plan(chosen, count, scores, (torch.ones_like(scores), scores))


FAMILIES: dict[str, Callable[[], list[Router]]] = {
    "relaxed": lambda: [Relaxed()],
    "straight_through": lambda: [StraightThrough()],
    "gumbel": lambda: [Gumbel()],
    "reinforce": lambda: [Reinforce()],
    "expert_threshold": lambda: [ExpertThreshold()],
    "expert_choice": lambda: [ExpertChoice()],
    "relu": lambda: [ReLU()],
    "top_p": lambda: [TopP()],
    "null_experts": lambda: [NullExperts()],
    "bias_balanced": lambda: [BiasBalanced()],
    "follows": lambda: [FollowsLayerBelow()],
    "surprisal": lambda: [Surprisal()],
    "tagged": lambda: [Tagged()],
    "supervised": lambda: [Supervised(FollowsLayerBelow())],
    "merged": lambda: [Merged()],
    "staged_mode": lambda: [Depth(), BiasBalanced()],
}


def decoder_of(family: str) -> Decoder:
    placed = {layer: FAMILIES[family]() for layer in (1, 2)}
    for layer, routers in placed.items():
        for router in routers:
            spec = RouterSpec(CONFIG.d_model, router.paths, 0.5, router.mean_experts, layer, 4, CONFIG.vocab_size, CONFIG.max_seq_len, 3, 7)
            router.build(spec)
            router.fit(TrainStatistics(torch.arange(CONFIG.vocab_size)))
    decoder = Decoder(CONFIG, placed, expert_width=16)
    decoder.reset(0)
    return trained_like(decoder)


@pytest.mark.parametrize("selection", ["topk", "causal"])
@pytest.mark.parametrize("family", FAMILIES)
def test_it_runs_learns_and_is_charged_for_its_plan(family: str, selection: Selection) -> None:
    decoder, ids = decoder_of(family), tokens()
    run = run_of(ids, selection)
    logits = decoder(run)
    token_loss = nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="none").view_as(ids)
    loss = token_loss.mean()
    for router, trace in zip(decoder.routers, run.traces, strict=True):
        assert trace.plan.mask.shape[2] == len(router.paths.names)
        assert router.allows_none or trace.plan.mask.any(-1).all() or trace.plan.mask.shape[1] < SEQ_LEN
        trace.token_loss = token_loss.detach()
        trace.labels = torch.where(ids % 2 == 0, ids % len(router.paths.names), -100)
        for auxiliary in router.aux_losses.values():
            loss = loss + auxiliary.weight * auxiliary.compute(trace)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in decoder.parameters() if p.grad is not None)
    for router, trace in zip(decoder.routers, run.traces, strict=True):
        if selection == "topk":  # whatever learns is reached by a gradient
            assert all(p.grad is not None and p.grad.any() for p in router.parameters()) or family == "reinforce"
        with torch.no_grad():
            router.after_step(trace)
    ledger = Ledger(decoder, SEQ_LEN, {})
    cost = ledger.charge_step(path_counts(run.traces), ids.numel())
    paths = sum(
        float((trace.plan.mask.sum(1).double() * torch.tensor(site.token)).sum())
        for trace, site in zip(run.traces, ledger.sites, strict=True)
    )
    assert cost >= 3 * (ledger.fixed * ids.numel() + paths)


@pytest.mark.parametrize("family", ["relaxed", "straight_through"])
def test_training_both_paths_is_paid_for_both(family: str) -> None:
    decoder = decoder_of(family)
    shares: dict[str, float] = {}
    for selection in ("topk", "causal"):
        run = run_of(tokens(), selection)
        decoder(run)
        shares[selection] = sum(float(trace.plan.mask.float().sum(-1).mean()) for trace in run.traces) / 2
    assert shares == {"topk": 2.0, "causal": 1.0}


def test_a_wrapped_router_is_calibrated_through_its_wrapper() -> None:
    router = decoder_of("supervised").routers[0]
    assert isinstance(router, Supervised)
    assert router.knob is not None
    router.knob.fill_(0.25)
    assert router.inner.knob is not None
    assert float(router.inner.knob) == 0.25


def test_staged_routing_sends_only_the_blocks_tokens_to_experts() -> None:
    run = run_of(tokens())
    decoder_of("staged_mode")(run)
    ffn, block = run.traces[:2]
    kept = block.plan.mask[..., 1].sum(1)
    assert block.paths.site is Site.BLOCK
    assert ffn.plan.mask.shape[1] == int(kept.max())
    assert torch.equal(ffn.plan.mask.any(-1).sum(1), kept)
