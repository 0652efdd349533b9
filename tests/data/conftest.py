import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest


def prose(seed: int, num_words: int = 200) -> str:
    """Text that no two seeds share a 13-gram of."""
    draw = random.Random(seed)
    return " ".join(
        "".join(draw.choices("abcdefghijklmnop", k=draw.randint(2, 9))) for _ in range(num_words)
    )


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows as JSON lines."""

    def write(rows: list[dict[str, object]], name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture
def two_domains(table: Callable[..., Path]) -> Path:
    """120 documents in two domains, `even` and `odd`."""
    return table(
        [{"text": prose(index), "kind": ("even", "odd")[index % 2]} for index in range(120)]
    )
