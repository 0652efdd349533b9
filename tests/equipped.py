"""Whole models whose routers are trained by a recipe of the test's choice."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bench.backbone.decoder import DecoderConfig
from bench.config.suite import RouterTraining, TrainConfig
from bench.model.assemble import Model
from bench.routing.registry import Entry
from bench.training.checkpoint import Checkpoints
from bench.training.loop import Allowance, Trained, train
from tests.small import SEQ_LEN, model, split

SMALL = DecoderConfig(
    vocab_size=50, d_model=16, num_layers=2, num_heads=2, ffn_width=64, cheap_rank=2, max_seq_len=32
)
BATCH, STEPS = 4, 3
ALL = {"noise": "gaussian", "balance_bias": 0.01, "expert_dropout": 0.2}


def built(
    name: str,
    options: Mapping[str, object] | None = None,
    entry: Entry | None = None,
    **training: Any,
) -> Model:
    changes = {} if entry is None else {"entry": entry}
    recipe = RouterTraining.model_validate(training)
    return model(
        name, options, decoder=SMALL, routed_layers=(1,), budget=0.7, training=recipe, **changes
    )


def fit(
    found: Model,
    steps: int = STEPS,
    checkpoints: Checkpoints | None = None,
    probe: Any = None,
    **training: Any,
) -> Trained:
    recipe = TrainConfig(
        reference_tokens=1,
        batch_size=BATCH,
        warmup=0.0,
        decay=0.0,
        probes=steps,
        router=RouterTraining(**training),
    )
    allowance = Allowance(math.inf, steps * BATCH * SEQ_LEN)
    meter = found.meter(0)
    return train(
        found,
        split(),
        recipe,
        allowance,
        seq_len=SEQ_LEN,
        seed=0,
        meter=meter,
        checkpoints=checkpoints,
        probe=probe,
    )


def weights(found: Model) -> dict[str, Tensor]:
    return {
        name: value.clone()
        for name, value in found.decoder.state_dict().items()
        if ".noise." not in name
    }


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name]) for name, value in one.items()
    )
