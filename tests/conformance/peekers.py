"""Routers that look ahead, sideways or back, for the proof of causality to find.

And honest ones that it must let pass.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from bench.rng import hash_uniform
from bench.routing.capacity import gate_plan, top_k_mask
from bench.routing.contract import Router, RouterInput, RouterSpec, RoutingPlan
from bench.routing.paths import BLOCK_GATE, FFN_GATE, experts
from tests.world import SEQ_LEN


class Gate(Router):
    """An honest gate, for cheaters to derive from."""

    paths = FFN_GATE

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.score = torch.nn.Linear(spec.d_model, 1)
        self.enable_knob()

    def scores(self, inputs: RouterInput) -> Tensor:
        return self.score(inputs.hidden).squeeze(-1)

    def choose(self, scores: Tensor, inputs: RouterInput) -> Tensor:
        assert self.knob is not None
        return scores + self.knob > 0

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        scores = self.scores(inputs)
        return gate_plan(
            self.choose(scores, inputs), None, scores, (1 - scores.sigmoid(), scores.sigmoid())
        )


class TopK(Gate):
    def choose(self, scores: Tensor, inputs: RouterInput) -> Tensor:
        return top_k_mask(scores, round(scores.shape[1] / 2))


class BlockTopK(TopK):
    paths = BLOCK_GATE


class WeightOnly(Gate):
    """Chooses honestly, but weighs by the mean of the future."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        plan = super().forward(inputs)
        assert plan.weight is not None
        return replace(
            plan,
            weight=plan.weight * (1 + 0.1 * inputs.hidden.mean((1, 2)).sigmoid())[:, None, None],
        )


class InLowPrecision(Gate):
    """Weighs by the next token where products are rounded, in two sequences of five."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        plan = super().forward(inputs)
        if not torch.is_autocast_enabled("cpu"):
            return plan
        assert plan.weight is not None
        seen = (inputs.tokens.roll(-1, 1) % 2 == 0) & (inputs.tokens[:, :1] % 5 < 2)
        return replace(plan, weight=plan.weight * (1 + 0.1 * seen).unsqueeze(-1))


class NextToken(Gate):
    def choose(self, scores: Tensor, inputs: RouterInput) -> Tensor:
        return inputs.tokens.roll(-1, 1) % 2 == 0


class BatchMates(Gate):
    def choose(self, scores: Tensor, inputs: RouterInput) -> Tensor:
        return scores > scores.mean(0)


class BatchSize(Gate):
    def choose(self, scores: Tensor, inputs: RouterInput) -> Tensor:
        return scores > 0 if len(scores) > 6 else scores > 0.1


class Length(Gate):
    """Decides by how long the sequence will be, which decoding does not know."""

    def choose(self, scores: Tensor, inputs: RouterInput) -> Tensor:
        return inputs.positions < scores.shape[1] // 2


class Dice(Gate):
    def choose(self, scores: Tensor, inputs: RouterInput) -> Tensor:
        return torch.rand(scores.shape) < 0.5


class Memory(Gate):
    """Remembers the tokens after each opening, and decides by them when the opening returns."""

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.seen: dict[tuple[int, ...], int] = {}

    def choose(self, scores: Tensor, inputs: RouterInput) -> Tensor:
        chosen = super().choose(scores, inputs).clone()
        for row, sequence in enumerate(inputs.tokens):
            opening = tuple(int(token) for token in sequence[:4])
            if len(opening) == 4:
                chosen[row, 3] ^= self.seen.get(opening, 0) % 2 == 1
            if len(sequence) > 4:
                self.seen.setdefault(opening, int(sequence[4]))
        return chosen


class Learns(Gate):
    """Counts the tokens it is evaluated on into a buffer."""

    count: Tensor

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.register_buffer("count", torch.zeros(()))

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        self.count.add_(inputs.tokens.numel())
        return super().forward(inputs)


class FirstCallsOnly(Gate):
    """Looks ahead while the official evaluation runs, and behaves when it is held to account."""

    calls = 0

    def choose(self, scores: Tensor, inputs: RouterInput) -> Tensor:
        self.calls += 1
        return (
            inputs.tokens.roll(-1, 1) % 2 == 0
            if self.calls == 1
            else super().choose(scores, inputs)
        )


class Preview(Gate):
    """Reveals the future through a non-number, which passes for close to anything in a sloppy
    comparison.
    """

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        plan = super().forward(inputs)
        assert plan.weight is not None
        return replace(
            plan, weight=torch.where(inputs.tokens[:, -1:, None] == 7, torch.nan, plan.weight)
        )


class RareLeak(Gate):
    """The last pair of tokens turns the first decision once in a hundred sequences, so two
    perturbations in a hundred show it.
    """

    def choose(self, scores: Tensor, inputs: RouterInput) -> Tensor:
        chosen = super().choose(scores, inputs).clone()
        if inputs.tokens.shape[1] == SEQ_LEN:
            chosen[:, 0] ^= hash_uniform(0, inputs.tokens[:, -1], inputs.tokens[:, -2]) < 0.01
        return chosen


class RareOpening(Gate):
    """In 4 % of sequences, known by their start, the last token turns a decision half the time: 2
    % of changes of the ending.
    """

    def choose(self, scores: Tensor, inputs: RouterInput) -> Tensor:
        chosen = super().choose(scores, inputs).clone()
        if inputs.tokens.shape[1] == SEQ_LEN:
            told = hash_uniform(0, inputs.tokens[:, 0], inputs.tokens[:, 1]) < 0.04
            chosen[:, 3] ^= told & (inputs.tokens[:, -1] % 2 == 0)
        return chosen


class FaintMean(Gate):
    """Subtracts a hundred-thousandth of the mean over the sequence, which turns no decision."""

    def scores(self, inputs: RouterInput) -> Tensor:
        scores = super().scores(inputs)
        return scores - 1e-5 * scores.mean(1, keepdim=True)


class FirstRow(Gate):
    """Compares all sequences with the mean of the first: a lost dimension."""

    def choose(self, scores: Tensor, inputs: RouterInput) -> Tensor:
        return scores > scores[0].mean()


class RoundRobin(Gate):
    """Decides by the place of a token in the flat batch."""

    def choose(self, scores: Tensor, inputs: RouterInput) -> Tensor:
        return (torch.arange(scores.numel()) % 5 < 2).view(scores.shape)


class RunningMean(Gate):
    """Keeps a running threshold in an attribute, and moves it in evaluation too."""

    level = 0.0

    def choose(self, scores: Tensor, inputs: RouterInput) -> Tensor:
        self.level = 0.9 * self.level + 0.1 * float(scores.mean())
        return scores > self.level


class BesideBudget(Gate):
    """Weighs by the next token where the knob is low."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        plan = super().forward(inputs)
        assert plan.weight is not None
        assert self.knob is not None
        seen = (inputs.tokens.roll(-1, 1) % 2 == 0) & (self.knob < 0)
        return replace(plan, weight=plan.weight * (1 + 0.1 * seen).unsqueeze(-1))


class MeanSoFar(Gate):
    """Subtracts the mean so far: honest, though it looks like a mean over the sequence."""

    def scores(self, inputs: RouterInput) -> Tensor:
        scores = super().scores(inputs)
        return scores - scores.cumsum(1) / (inputs.positions + 1)


class Crowded(Router):
    """Top-2 of 8 experts of limited capacity, all first choices before all second ones (GShard).

    Which tokens find their second expert full depends on the first choices of later ones.
    """

    paths = experts(8)
    mean_experts = 2.0
    over_batch = False

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.score = torch.nn.Linear(spec.d_model, 8)

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        scores = self.score(inputs.hidden)
        top = scores.topk(2, -1).indices.unsqueeze(-1) == torch.arange(8)
        groups = top.flatten(0, 1).unsqueeze(0) if self.over_batch else top
        first, second = groups.long().unbind(2)
        capacity = math.ceil(1.25 * 2 * groups.shape[1] / 8)
        place = second.cumsum(1) - second + first.sum(1, keepdim=True)
        fits = (place < capacity).view(scores.shape)
        return RoutingPlan(top[..., 0, :] | (top[..., 1, :] & fits), scores.softmax(-1), scores)


class CrowdedBatch(Crowded):
    over_batch = True
