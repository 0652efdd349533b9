"""Count the work of a cell before it runs: FLOPs, steps, parameters, memory and disk."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.backbone.presets import PRESETS
from bench.data import Corpus
from bench.flops.budget import dense_costs
from bench.model.sketch import Sketch, sketch
from bench.runner.cells import Cell
from bench.runner.frozen import training_budget
from bench.runner.resolve import decoder_of, resolve

STATE_BYTES = 16
"""Bytes of a parameter in training: weight, gradient, and at most two states of the optimiser."""
SAVED_BYTES = 12
"""Bytes of a parameter in a checkpoint: weight and states."""
CHECKPOINTS_OF_A_CELL = 2
ACTIVATION_BYTES = 100
"""Bytes of activations that a layer keeps for one token and one unit of width, in float32."""
LOGIT_BYTES = 12
"""Bytes of one logit: the logit, its probability and its gradient."""


@dataclass(frozen=True)
class Work:
    """The work of one cell.

    Attributes:
        suite: name of the suite.
        row: name of the row.
        flops: training FLOPs.
        steps: training steps.
        parameters: number of parameters.
        expert_layers: routed layers that send tokens to experts.
        batch_bytes: activations of a training step.
        pretraining: FLOPs of the frozen backbone, which the cells of a seed share.
    """

    suite: str
    row: str
    flops: float
    steps: float
    parameters: float
    expert_layers: int
    batch_bytes: float
    pretraining: float = 0.0

    @property
    def memory(self) -> float:
        """Return the bytes of weights, gradients, optimiser and activations."""
        return STATE_BYTES * self.parameters + self.batch_bytes

    @property
    def checkpoints(self) -> float:
        """Return the bytes of the checkpoints of a running cell."""
        return CHECKPOINTS_OF_A_CELL * SAVED_BYTES * self.parameters


def work_of(cell: Cell, corpus: Corpus) -> Work:
    """Return the work of a cell. Its own labels and auxiliary losses are not in it.

    Raises:
        UserError: no such router, or no size of it meets the budget.
    """
    suite, found = cell.suite, sketch(resolve(cell, corpus).blueprint())
    config = decoder_of(suite, corpus.vocab_size)
    per_token = _training_cost(found, suite.regime == "controller")
    # On a frozen backbone a router without parameters has nothing to train.
    if suite.regime == "controller" and not found.learns:
        flops = 0.0
    elif cell.match == "flops":
        flops = training_budget(suite, config)
    else:
        flops = per_token * suite.train.reference_tokens
    # Forward and backward of the full model: three times the forward pass.
    pretraining = 0.0
    if suite.pretrain is not None and suite.regime == "controller":
        full = dense_costs(config, suite.routed_layers, suite.seq_len).full
        pretraining = 3 * full * suite.pretrain.tokens
    return Work(
        suite=suite.name,
        row=cell.row.name,
        flops=flops,
        steps=flops / per_token / (suite.train.batch_size * suite.seq_len),
        parameters=found.parameters,
        expert_layers=len(found.solution.layers) * bool(found.solution.expert_width),
        batch_bytes=batch_bytes(suite.canonical(), corpus.vocab_size),
        pretraining=pretraining,
    )


def batch_bytes(suite: Mapping[str, Any], vocab_size: int) -> float:
    """Return the bytes of activations of a training step.

    Args:
        suite: the canonical suite, as records keep it.
        vocab_size: number of token ids.
    """
    sizes, tokens = PRESETS[suite["backbone"]], suite["train"]["batch_size"] * suite["seq_len"]
    size = 0.5 if suite.get("dtype") == "bfloat16" else 1.0
    layers = sizes["num_layers"] * sizes["d_model"] * ACTIVATION_BYTES * size
    return tokens * (layers + LOGIT_BYTES * vocab_size)


def _training_cost(found: Sketch, frozen: bool) -> float:
    """Return the FLOPs of training on one token, forward and backward."""
    ledger, shares = found.ledger, found.shares
    if not frozen:
        return 3 * ledger.at(shares)
    # The first router's update carries the first gradient.
    return ledger.at(shares) + ledger.backward(found.solution.layers[0]).at(shares)
