"""Fixed rules for which token takes which path: nothing is learnt, so learned routing has something
to be held against.

Each rule is a gate (cheap or full) or chooses one of several experts. As a gate it says how much
each token wants the full path; the most wanting `capacity` of them get it, with ties broken by a
hash, so that the budget is met also where many tokens are alike.
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
"""Pairs are counted up to here (`bench.routing.TrainStatistics.bigram`)."""


class Heuristic(Router):
    """Base of the rules: a subclass says what a token's `demand` for the full path is, and which
    `expert` it takes.

    Args:
        over: the paths: "ffn" (cheap or full), or "experts".
        num_experts: size of the bank, for "experts"; a token takes one.

    Attributes:
        over_batch: in training the full path goes to the most wanting tokens of the batch, not of
            each sequence: for rules under which whole sequences may want one path.
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
        """Take a knob where the share of upgraded tokens is free."""
        super().build(spec)
        if self.over == "ffn":
            self.enable_knob()

    def demand(self, inputs: RouterInput) -> Float[Tensor, "batch seq"]:
        """How much each token wants the full path."""
        raise TypeError(
            f"{type(self).__name__} must define demand(inputs) -> how much each token wants the full path."
        )

    def expert(self, inputs: RouterInput) -> Int[Tensor, "batch seq"]:
        """The expert of each token, by default by the equal part of [0, 1] in which its demand
        lies.
        """
        return (self.demand(inputs) * self.num_experts).long().clamp(0, self.num_experts - 1)

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        """Apply the rule."""
        if self.over == "experts":
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
    """A random number for each short context, drawn once: hashing without learning (Hash Layers,
    section 3).

    A hash of single bytes misses a budget by the share of the commonest byte; contexts of a few
    tokens are each rare. With `context` 1 over experts it is `hash`.

    Args:
        over: the paths, as in `Heuristic`, whose options all rules have.
        num_experts: size of the bank.
        context: tokens that are hashed, the current one last.
    """

    def __init__(self, over: Over = "ffn", num_experts: int = 8, context: int = 3) -> None:
        super().__init__(over, num_experts)
        if context < 1:
            raise ValueError(
                f"context is {context}; at least the token itself is hashed, so it must be 1 or more."
            )
        self.context = context

    def demand(self, inputs: RouterInput) -> Float[Tensor, "batch seq"]:
        """The hash, uniform over contexts."""
        parts = [shifted(inputs.tokens, distance, -1) for distance in range(self.context)]
        return hash_uniform(self.spec.seed, self.spec.layer, *parts)


@register("stride", family="heuristic")
class Stride(Heuristic):
    """Every so many tokens, whatever they are.

    The stride may be a fraction: 1 / capacity for a gate; experts take turns.
    """

    def demand(self, inputs: RouterInput) -> Float[Tensor, "batch seq"]:
        """Above 1 where a multiple of the stride lies nearest to the position, below 1 elsewhere."""
        position = inputs.positions.double()
        here, following = (
            (place * self.spec.capacity + 0.5).floor() for place in (position, position + 1)
        )
        return (following > here) + hash_noise(self.spec, inputs)

    def expert(self, inputs: RouterInput) -> Int[Tensor, "batch seq"]:
        """The position, modulo the number of experts."""
        return inputs.positions % self.num_experts


@register("tag", family="heuristic", paper="arXiv:2306.03745")
class Tag(Heuristic):
    """The domain decides: its own expert, shared where domains outnumber experts, or a gate open to
    some domains, drawn by the seed.
    """

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
        """The domain's place in the order, in [0, 1)."""
        assert inputs.tags is not None
        return (self.place[inputs.tags] + hash_noise(self.spec, inputs)) / len(self.place)

    def expert(self, inputs: RouterInput) -> Int[Tensor, "batch seq"]:
        """The domain, modulo the number of experts."""
        assert inputs.tags is not None
        return inputs.tags % self.num_experts


@register("planted_oracle", family="heuristic")
class PlantedOracle(Heuristic):
    """The right path of each token, where the data tell it: what a perfect router would do.

    Over (cheap, full) the tokens whose right path is full come first, and the budget decides where
    the rest begin. Tokens without a right path are spread by a hash.
    """

    needs = frozenset({"truth"})

    def demand(self, inputs: RouterInput) -> Float[Tensor, "batch seq"]:
        """Above 1 where the full path is right, below 1 elsewhere."""
        assert inputs.truth is not None
        return (inputs.truth == 1) + hash_noise(self.spec, inputs)

    def expert(self, inputs: RouterInput) -> Int[Tensor, "batch seq"]:
        """The right expert, modulo their number."""
        assert inputs.truth is not None
        anywhere = (hash_noise(self.spec, inputs) * self.num_experts).long()
        return torch.where(inputs.truth < 0, anywhere, inputs.truth % self.num_experts)


class _ByRarity(Heuristic):
    """Tokens in the order of a table over (what came before, token), each with its share of the
    training text.

    A token lies between `low` and `low + width` of the text, sorted by the table. A gate spreads it
    there by a hash, which makes the demand uniform over the training text, so that `capacity` of it
    is upgraded; an expert is chosen by the middle.
    """

    low: Tensor
    width: Tensor

    def _make_table(self, rows: int, vocab_size: int) -> None:
        self.register_buffer("low", torch.zeros(rows, vocab_size))
        self.register_buffer("width", torch.ones(rows, vocab_size))

    def _sort(self, rarity: Float[Tensor, "row vocab"], mass: Float[Tensor, "row vocab"]) -> None:
        """Fill the table: what is as rare shares a place; `mass` sums to 1."""
        levels, index = rarity.flatten().unique(return_inverse=True)
        held = torch.zeros(len(levels), dtype=torch.float64).index_add(0, index, mass.flatten())
        before = held.cumsum(0) - held
        self.low.copy_(before[index].view_as(self.low))
        self.width.copy_(held[index].view_as(self.width))

    def _row(self, inputs: RouterInput) -> Int[Tensor, "batch seq"]:
        return torch.zeros_like(inputs.tokens)

    def demand(self, inputs: RouterInput) -> Float[Tensor, "batch seq"]:
        """Place of the token in the order of rarity, in [0, 1]."""
        place = self._row(inputs), inputs.tokens
        return self.low[place] + self.width[place] * hash_noise(self.spec, inputs)

    def expert(self, inputs: RouterInput) -> Int[Tensor, "batch seq"]:
        """The equal part of the text in which the middle of the token's place lies."""
        place = self._row(inputs), inputs.tokens
        middle = (self.low[place] + self.width[place] / 2) * self.num_experts
        return middle.long().clamp_max(self.num_experts - 1)


@register("frequency", family="heuristic")
class Frequency(_ByRarity):
    """Rare tokens take the full path, or tokens of one frequency share an expert.

    Counted on the training text.
    """

    def build(self, spec: RouterSpec) -> None:
        """Make the table."""
        super().build(spec)
        self._make_table(1, spec.vocab_size)

    def fit(self, statistics: TrainStatistics) -> None:
        """Sort the vocabulary by how often it occurs."""
        counts = statistics.unigram.cpu().double().unsqueeze(0)
        self._sort(-counts, counts / counts.sum())


@register("surprisal", family="heuristic")
class Surprisal(_ByRarity):
    """Surprising tokens take the full path: the surprisal of the current token under counts over
    the training text.

    Args:
        over: the paths, as in `Heuristic`, whose options all rules have.
        num_experts: size of the bank.
        order: "bigram" looks at the token before too, and needs a vocabulary of at most 1024;
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
        self.order = order

    def build(self, spec: RouterSpec) -> None:
        """Make the table: a row for each token before, and one for none."""
        super().build(spec)
        if self.order == "bigram" and spec.vocab_size > LARGEST_BIGRAM_VOCABULARY:
            allowed = f"a vocabulary of at most {LARGEST_BIGRAM_VOCABULARY}, and this one has {spec.vocab_size}"
            raise ValueError(f"order is 'bigram', which needs {allowed}: use 'unigram'")
        self._make_table(spec.vocab_size + 1 if self.order == "bigram" else 1, spec.vocab_size)

    def fit(self, statistics: TrainStatistics) -> None:
        """Sort the table by surprisal.

        A Dirichlet prior of one count draws pairs towards single tokens; those have a count more
        each.
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
        self._sort(-torch.cat((after, alone)).log(), torch.cat((mass, torch.zeros_like(alone))))

    def _row(self, inputs: RouterInput) -> Int[Tensor, "batch seq"]:
        rows = len(self.low)
        return super()._row(inputs) if rows == 1 else shifted(inputs.tokens, 1, rows - 1)


def shifted(
    tokens: Int[Tensor, "batch seq"], distance: int, missing: int
) -> Int[Tensor, "batch seq"]:
    """The token `distance` before each, `missing` where there is none."""
    before = torch.full(
        (len(tokens), min(distance, tokens.shape[1])),
        missing,
        dtype=tokens.dtype,
        device=tokens.device,
    )
    return torch.cat((before, tokens[:, : max(0, tokens.shape[1] - distance)]), dim=1)
