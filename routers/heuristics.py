"""Define fixed rules for the choice of paths, to compare learned routing with.

A rule is a gate (cheap or full), or it chooses one of several experts. As a gate it gives each
token a demand for the full path. The share `capacity` with the highest demand gets it. A hash
breaks ties, so the budget is met even if many tokens are alike.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bench.routing import (
    FFN_GATE,
    Router,
    RouterInput,
    RouterSpec,
    RoutingPlan,
    TrainStatistics,
    experts,
    gate_plan,
    hash_noise,
    hash_uniform,
    register,
    tokens_kept,
    top_k_mask,
    upgrade,
)

Over = Literal["ffn", "experts"]

LARGEST_BIGRAM_VOCABULARY = 1024
"""Largest vocabulary whose pairs are counted (`bench.routing.TrainStatistics.bigram`)."""


class Heuristic(Router):
    """Base of the rules. A subclass defines the `demand` of a token and the `expert` it takes.

    Args:
        over: the paths: "ffn" (cheap or full), or "experts".
        num_experts: size of the bank, for "experts"; a token takes one.

    Attributes:
        over_batch: compare the demands of a batch in training, not those of each sequence, for
            rules with one demand for whole sequences.
    """

    over_batch = False

    def __init__(self, over: Over = "ffn", num_experts: int = 8) -> None:
        super().__init__()
        if over not in ("ffn", "experts"):
            raise ValueError(f"over is {over!r}; allowed are 'ffn', 'experts'.")
        if num_experts < 2:
            raise ValueError(
                f"num_experts is {num_experts}; at least 2 are needed to choose among."
            )
        self.over, self.num_experts = over, num_experts
        self.paths = FFN_GATE if over == "ffn" else experts(num_experts)

    def build(self, spec: RouterSpec) -> None:
        """Enable the knob if the share of upgraded tokens is free."""
        super().build(spec)
        if self.over == "ffn":
            self.enable_knob()

    def demand(self, inputs: RouterInput) -> Float[Tensor, "batch seq"]:
        """Return the demand of each token for the full path."""
        raise TypeError(
            f"{type(self).__name__} must define demand(inputs) -> demand of each token for the "
            "full path."
        )

    def expert(self, inputs: RouterInput) -> Int[Tensor, "batch seq"]:
        """Return the expert of each token.

        By default [0, 1] is cut into equal parts, and the demand of a token lies in one of them.
        """
        return (self.demand(inputs) * self.num_experts).long().clamp(0, self.num_experts - 1)

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        """Apply the rule."""
        if self.over == "experts":
            # Experts have no knob: a token takes one, so the width alone meets the budget.
            index = self.expert(inputs).unsqueeze(-1)
            mask = torch.zeros(
                *inputs.tokens.shape, self.num_experts, dtype=torch.bool, device=index.device
            )
            return RoutingPlan(mask.scatter(2, index, True))
        demand = self.demand(inputs)
        if self.over_batch and inputs.selection == "topk":
            kept = tokens_kept(self.spec.capacity, demand.numel())
            return gate_plan(top_k_mask(demand.reshape(1, -1), kept).view_as(demand), None)
        return gate_plan(*upgrade(demand, inputs, self.spec, self.knob))


@register("context_hash", family="heuristic", paper="arXiv:2106.04426")
class ContextHash(Heuristic):
    """A random number for each short context, drawn once (Hash Layers, section 3).

    A hash of single bytes misses a budget by the share of the commonest byte. Contexts of a few
    tokens are each rare. With `context` 1 over experts it is `hash`.

    Args:
        over: the paths: "ffn" (cheap or full), or "experts".
        num_experts: size of the bank, for "experts".
        context: number of hashed tokens, the current one last.
    """

    def __init__(self, over: Over = "ffn", num_experts: int = 8, context: int = 3) -> None:
        super().__init__(over, num_experts)
        if context < 1:
            raise ValueError(
                f"context is {context}; at least the token itself is hashed, so it must be 1 or "
                "more."
            )
        self.context, self.pointwise = context, context == 1

    def demand(self, inputs: RouterInput) -> Float[Tensor, "batch seq"]:
        """Return the hash, uniform over contexts."""
        parts = [shifted(inputs.tokens, distance, -1) for distance in range(self.context)]
        return hash_uniform(self.spec.seed, self.spec.layer, *parts)


@register("stride", family="heuristic")
class Stride(Heuristic):
    """Every so many tokens, by position alone.

    The stride is 1 / capacity for a gate, and may be a fraction. Experts take turns.
    """

    pointwise = True

    def demand(self, inputs: RouterInput) -> Float[Tensor, "batch seq"]:
        """Return more than 1 at positions nearest to a multiple of the stride, less elsewhere."""
        # Exact up to 2**53: float32 would lose the fraction at long positions.
        position = inputs.positions.double()
        here, following = (
            (place * self.spec.capacity + 0.5).floor() for place in (position, position + 1)
        )
        return (following > here) + hash_noise(self.spec, inputs)

    def expert(self, inputs: RouterInput) -> Int[Tensor, "batch seq"]:
        """Return the position, modulo the number of experts."""
        return inputs.positions % self.num_experts


@register("tag", family="heuristic", paper="arXiv:2306.03745")
class Tag(Heuristic):
    """A choice by domain.

    Each domain has its own expert, or shares one if domains outnumber experts. A gate is open to
    some domains, drawn by the seed.
    """

    pointwise = True
    needs = frozenset({"tags"})
    over_batch = True
    place: Tensor

    def build(self, spec: RouterSpec) -> None:
        """Draw the order of the domains."""
        super().build(spec)
        domains = torch.arange(spec.num_domains)
        self.register_buffer(
            "place", hash_uniform(spec.seed, spec.layer, domains).argsort().argsort()
        )

    def demand(self, inputs: RouterInput) -> Float[Tensor, "batch seq"]:
        """Return the domain's place in the order, in [0, 1)."""
        assert inputs.tags is not None
        return (self.place[inputs.tags] + hash_noise(self.spec, inputs)) / len(self.place)

    def expert(self, inputs: RouterInput) -> Int[Tensor, "batch seq"]:
        """Return the domain, modulo the number of experts."""
        assert inputs.tags is not None
        return inputs.tags % self.num_experts


@register("planted_oracle", family="heuristic")
class PlantedOracle(Heuristic):
    """A perfect router: the right path of each token, for data that have right paths.

    Over (cheap, full), tokens whose right path is full have the highest demand. A hash spreads
    tokens without a right path.
    """

    pointwise = True
    needs = frozenset({"truth"})

    def demand(self, inputs: RouterInput) -> Float[Tensor, "batch seq"]:
        """Return more than 1 where the full path is right, less elsewhere."""
        assert inputs.truth is not None
        return (inputs.truth == 1) + hash_noise(self.spec, inputs)

    def expert(self, inputs: RouterInput) -> Int[Tensor, "batch seq"]:
        """Return the right expert, modulo the number of experts."""
        assert inputs.truth is not None
        anywhere = (hash_noise(self.spec, inputs) * self.num_experts).long()
        return torch.where(inputs.truth < 0, anywhere, inputs.truth % self.num_experts)


class _ByRarity(Heuristic):
    """A demand by the place of a token in the training text, sorted by rarity.

    A table over (context, token) holds `low` and `width`: the token takes the places from `low` to
    `low + width` of the sorted text. A gate draws a place among these by a hash. Then the demand is
    uniform over the training text, and `capacity` of it is upgraded. An expert is chosen by the
    middle place.
    """

    low: Tensor
    width: Tensor

    def _make_table(self, rows: int, vocab_size: int) -> None:
        self.register_buffer("low", torch.zeros(rows, vocab_size))
        self.register_buffer("width", torch.ones(rows, vocab_size))

    def _sort(self, rarity: Float[Tensor, "row vocab"], mass: Float[Tensor, "row vocab"]) -> None:
        """Fill the table. Equally rare entries share their places; `mass` sums to 1."""
        # In float64: the sums run over as many entries as the vocabulary has pairs.
        levels, index = rarity.flatten().unique(return_inverse=True)
        held = torch.zeros(len(levels), dtype=torch.float64).index_add(0, index, mass.flatten())
        before = held.cumsum(0) - held
        self.low.copy_(before[index].view_as(self.low))
        self.width.copy_(held[index].view_as(self.width))

    def _row(self, inputs: RouterInput) -> Int[Tensor, "batch seq"]:
        return torch.zeros_like(inputs.tokens)

    def demand(self, inputs: RouterInput) -> Float[Tensor, "batch seq"]:
        """Return the place of the token in the order of rarity, in [0, 1]."""
        place = self._row(inputs), inputs.tokens
        return self.low[place] + self.width[place] * hash_noise(self.spec, inputs)

    def expert(self, inputs: RouterInput) -> Int[Tensor, "batch seq"]:
        """Return the part of the text, of as many as experts, that holds the middle place."""
        place = self._row(inputs), inputs.tokens
        middle = (self.low[place] + self.width[place] / 2) * self.num_experts
        return middle.long().clamp_max(self.num_experts - 1)


@register("frequency", family="heuristic")
class Frequency(_ByRarity):
    """The full path for rare tokens, or an expert for tokens of similar frequency.

    Frequencies are those of the training text.
    """

    pointwise = True

    def build(self, spec: RouterSpec) -> None:
        """Make the table."""
        super().build(spec)
        self._make_table(1, spec.vocab_size)

    def fit(self, statistics: TrainStatistics) -> None:
        """Sort the vocabulary by frequency."""
        counts = statistics.unigram.cpu().double().unsqueeze(0)
        self._sort(-counts, counts / counts.sum())


@register("surprisal", family="heuristic")
class Surprisal(_ByRarity):
    """The full path for tokens of high surprisal, under counts over the training text.

    Args:
        over: the paths: "ffn" (cheap or full), or "experts".
        num_experts: size of the bank, for "experts".
        order: "bigram" also reads the token before, and needs a vocabulary of at most 1024;
            "unigram" is the order of `frequency`.
    """

    def __init__(
        self,
        over: Over = "ffn",
        num_experts: int = 8,
        order: Literal["unigram", "bigram"] = "bigram",
    ) -> None:
        super().__init__(over, num_experts)
        if order not in ("unigram", "bigram"):
            raise ValueError(f"order is {order!r}; allowed are 'unigram', 'bigram'.")
        self.order, self.pointwise = order, order == "unigram"

    def build(self, spec: RouterSpec) -> None:
        """Make the table: a row for each token before, and one for none."""
        super().build(spec)
        if self.order == "bigram" and spec.vocab_size > LARGEST_BIGRAM_VOCABULARY:
            raise ValueError(
                "order is 'bigram', which needs a vocabulary of at most "
                f"{LARGEST_BIGRAM_VOCABULARY}, and this one has {spec.vocab_size}: use 'unigram'"
            )
        self._make_table(spec.vocab_size + 1 if self.order == "bigram" else 1, spec.vocab_size)

    def fit(self, statistics: TrainStatistics) -> None:
        """Sort the table by surprisal.

        A Dirichlet prior of one count draws pairs towards single tokens, and each single token has
        one count more.
        """
        counts = statistics.unigram.cpu().double() + 1
        alone = (counts / counts.sum()).unsqueeze(0)
        if self.order == "unigram":
            self._sort(-alone.log(), alone)
            return
        assert statistics.bigram is not None
        pairs = statistics.bigram.cpu().double()
        seen = pairs.sum(1, keepdim=True)
        after = (pairs + alone) / (seen + 1)
        mass = after * (seen + 1) / (seen + 1).sum()
        # The last row is for tokens without one before; it takes no share of the text.
        self._sort(-torch.cat((after, alone)).log(), torch.cat((mass, torch.zeros_like(alone))))

    def _row(self, inputs: RouterInput) -> Int[Tensor, "batch seq"]:
        rows = len(self.low)
        return super()._row(inputs) if rows == 1 else shifted(inputs.tokens, 1, rows - 1)


def shifted(
    tokens: Int[Tensor, "batch seq"], distance: int, missing: int
) -> Int[Tensor, "batch seq"]:
    """Return the token `distance` before each, or `missing` if there is none."""
    before = torch.full(
        (len(tokens), min(distance, tokens.shape[1])),
        missing,
        dtype=tokens.dtype,
        device=tokens.device,
    )
    return torch.cat((before, tokens[:, : max(0, tokens.shape[1] - distance)]), dim=1)
