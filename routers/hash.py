"""Define Hash Layers: a choice by token id (arXiv:2106.04426)."""

from typing import Literal, get_args

import torch
from jaxtyping import Int
from torch import Tensor

from bench.routing import (
    RouterInput,
    RoutingPlan,
    TokenChoice,
    TrainStatistics,
    hash_uniform,
    register,
)
from bench.routing.token_choice import marked

Hashed = Literal["none", "first", "half", "all"]


@register("hash", family="heuristic", paper="arXiv:2106.04426")
class Hash(TokenChoice):
    """The same expert for a token id at every place (Hash Layers); nothing is learnt.

    Layers that are not hashed choose one expert, like `top1_moe`.

    Args:
        num_experts: size of the bank.
        assignment: "balanced" assigns the commonest token ids first, each to the expert with the
            least text so far (section 3.1, the assignment of the paper's main results); "random"
            draws an expert for each.
        hashed: routed layers that hash, from the bottom: "all", the first "half" (with the middle
            one), the "first", or "none". DeepSeek-V4 hashes in its first three.

    Raises:
        ValueError: an option that is not allowed.
    """

    pointwise = True
    expert: Tensor

    def __init__(
        self,
        num_experts: int = 8,
        assignment: Literal["balanced", "random"] = "balanced",
        hashed: Hashed = "all",
    ) -> None:
        learns = hashed != "all"
        super().__init__(
            num_experts, 1, renormalise=False, balance="auxiliary" if learns else "none"
        )
        if assignment not in ("balanced", "random"):
            raise ValueError(f"assignment is {assignment!r}; allowed are 'balanced', 'random'.")
        if hashed not in get_args(Hashed):
            raise ValueError(f"hashed is {hashed!r}; allowed are {', '.join(get_args(Hashed))}.")
        self.assignment, self.hashed = assignment, hashed

    @property
    def is_hashed(self) -> bool:
        """Return whether this layer hashes."""
        # Routers outside a model know their own layer only.
        layers = self.spec.routed_layers or (self.spec.layer,)
        count = {"none": 0, "first": 1, "half": -(-len(layers) // 2), "all": len(layers)}
        return self.spec.layer in layers[: count[self.hashed]]

    def make_scores(self, count: int) -> None:
        """Draw the table of experts, `[vocab]`, or make logits for a layer that learns."""
        if not self.is_hashed:
            super().make_scores(count)
            return
        self.aux_losses.clear()
        ids = torch.arange(self.spec.vocab_size)
        drawn = hash_uniform(self.spec.seed, self.spec.layer, ids)
        self.register_buffer("expert", (drawn * count).long())

    def fit(self, statistics: TrainStatistics) -> None:
        """Balance the table by the counts of the training text."""
        if self.assignment == "random" or not self.is_hashed:
            return
        counts = statistics.unigram.cpu()
        # Counts are whole numbers, so a start below 1 only breaks ties, by layer and seed.
        paths = torch.arange(self.num_experts)
        loads = hash_uniform(self.spec.seed, self.spec.layer, paths).double()
        table = torch.zeros_like(counts)
        # one id at a time as a vector of one, so that no number leaves torch
        for token in counts.argsort(descending=True, stable=True).split(1):
            emptiest = loads.argmin(0, keepdim=True)
            table[token] = emptiest
            loads[emptiest] += counts[token]
        self.expert.copy_(table)

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        """Look up the expert of each token, or choose it."""
        if not self.is_hashed:
            return super().forward(inputs)
        expert: Int[Tensor, "batch seq 1"] = self.expert[inputs.tokens].unsqueeze(-1)
        return RoutingPlan(marked(expert, self.num_experts))
