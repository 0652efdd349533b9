"""A spec and inputs of a router, by hand."""

from typing import Any

import torch

from bench.rng import generator
from bench.routing.contract import RouterInput, RouterSpec, Selection
from bench.routing.paths import FFN_GATE


def spec(capacity: float = 0.5, **changes: Any) -> RouterSpec:
    fields: dict[str, Any] = {
        "d_model": 4,
        "paths": FFN_GATE,
        "capacity": capacity,
        "mean_experts": 1.0,
        "layer": 1,
        "num_layers": 4,
    }
    return RouterSpec(
        **(fields | {"vocab_size": 50, "max_seq_len": 64, "num_domains": 3, "seed": 9} | changes)
    )


def inputs(batch: int, seq: int, selection: Selection) -> RouterInput:
    ids = torch.randint(50, (batch, seq), generator=generator(0, "ids"))
    return RouterInput(
        torch.zeros(batch, seq, 4),
        ids,
        torch.arange(seq).expand(batch, seq),
        None,
        None,
        None,
        0.0,
        selection,
    )
