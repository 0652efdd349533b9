"""Plain data of a suite with two rows, as YAML would give them."""

from typing import Any

SUITE: dict[str, Any] = {
    "name": "s",
    "purpose": "p",
    "backbone": "tiny",
    "routed_layers": [1, 2],
    "seq_len": 32,
    "train": {"reference_tokens": 100},
    "rows": ["mlp_gate", {"name": "random@ffn", "role": "control", "options": {"over": "ffn"}}],
}
