"""Plain data of a suite with two rows, as YAML would give them."""

from typing import Any

SUITE: dict[str, Any] = {
    "name": "s",
    "purpose": "p",
    "regime": "joint",
    "backbone": "tiny",
    "routed_layers": [1, 2],
    "seq_len": 32,
    "budget": 0.5,
    "match": "flops",
    "seeds": 3,
    "data": {},
    "train": {"reference_tokens": 100},
    "rows": [{"name": "mlp_gate"}, {"name": "random@ffn", "role": "control"}],
}
