"""Whatever can be known before the first step is refused before it, in one line."""

from pathlib import Path
from typing import Any

import pytest

from bench.config.suite import SuiteConfig
from bench.data import check_windows, load_corpus
from bench.errors import UserError
from bench.runner.cells import Cell
from bench.runner.preflight import check_cells, check_suite
from tests import world


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOKEN_ROUTING_BENCH_CACHE", str(tmp_path / "cache"))
    return world.write_text(tmp_path)


def check(suite: SuiteConfig) -> None:
    check_suite(suite)
    check_windows(load_corpus(suite.data.at(0)), suite)
    check_cells([Cell(suite, row, seed) for row in suite.rows for seed in range(2)])


def test_a_sound_suite_passes(text: Path) -> None:
    check(world.suite(text))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"backbone": "huge"}, "Unknown backbone preset 'huge'"),
        ({"routed_layers": [9]}, "names layer 9; the backbone 'tiny' has layers 0 to 3"),
        ({"evaluation": {"validation_windows": 10_000}}, "validation_windows is 10000, and"),
        ({"seq_len": 100_000}, "seq_len is 100000, and the"),
        ({"budget": 0.01, "rows": ["mlp_gate"]}, "Row 'mlp_gate' at budget 0.01: Router"),
        ({"budget": 0.005, "rows": ["stride"]}, "no token of a sequence of 32"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(
    text: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError) as told:
        check(world.suite(text, **changes))
    assert said in str(told.value) and "\n" not in str(told.value)
