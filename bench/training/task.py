"""Define the terms of a training: the task, its budget and its result."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from bench.config.recipe import TrainConfig
from bench.data import Split
from bench.routing.contract import TrainStatistics


@dataclass(frozen=True)
class TrainTask:
    """Everything but the model and the budget that the trained weights depend on.

    Attributes:
        split: training text.
        config: the recipe.
        seq_len: tokens per sequence.
        seed: seed of the data order and, with `router_seed`, of the routing noise.
        router_seed: gives a twin its own noise.
        lr_scale: factor on every learning rate.
        dtype: precision of matrix products.
        statistics: counts the training split; called only if a router fits tables.
    """

    split: Split
    config: TrainConfig
    seq_len: int
    seed: int
    router_seed: int = 0
    lr_scale: float = 1.0
    dtype: torch.dtype = torch.float32
    statistics: Callable[[], TrainStatistics] | None = None


@dataclass(frozen=True)
class Allowance:
    """Training budget of one run.

    Attributes:
        flops: training FLOPs, the currency; infinite if tokens are matched.
        tokens: training tokens, for the brackets and `--match tokens`; infinite if FLOPs are
            matched.
    """

    flops: float
    tokens: float

    def spent(self, flops: float, tokens: int) -> float:
        """Return the spent share of the budget; 1 for an empty budget."""
        # The limit that is reached first ends the training; the other may be infinite.
        return max(flops / self.flops, tokens / self.tokens) if self.flops and self.tokens else 1.0


@dataclass
class Trained:
    """The result of training, without the weights, which are in the model.

    Attributes:
        steps: optimiser steps.
        tokens: tokens seen.
        seconds: wall-clock time of the steps.
        optimizer_flops: FLOPs of the optimiser, shown and never charged.
        auxiliary: last mean of each auxiliary loss.
        gradients: gradient norms in the step before each probe, `[probe][site][router, paths]`.
        shares: share of all tokens that chose each path at the end of training, `[site][path]`;
            empty where choices are unknown.
        curriculum: for each ordered window, rank correlation of complexity and loss; empty without
            a curriculum.
    """

    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    optimizer_flops: float = 0.0
    auxiliary: dict[str, float] = field(default_factory=dict[str, float])
    gradients: list[list[list[float]]] = field(default_factory=list[list[list[float]]])
    shares: list[list[float]] = field(default_factory=list[list[float]])
    curriculum: list[float] = field(default_factory=list[float])
