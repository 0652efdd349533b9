"""What a run prints while it works, by a clock of the test's own."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.commands.progress import Progress
from bench.runner.work import CellResult
from tests import world


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("bench.commands.progress.time.monotonic", lambda: now[0])
    return now


def progress(folder: Path, total: int) -> tuple[Progress, io.StringIO]:
    written = io.StringIO()
    return Progress(Console(file=written, width=200), total, folder), written


def outcome(folder: Path, status: str, **changes: Any) -> CellResult:
    cell = world.cell(folder / "text.jsonl", **changes)
    return CellResult(cell, status, "2.5 nats a byte", 3.0)


def test_each_outcome_is_a_line_with_the_time_left(tmp_path: Path, clock: list[float]) -> None:
    shown, written = progress(tmp_path, 4)
    with shown:
        shown(outcome(tmp_path, "kept"))
        assert shown.time_left() == "", "a kept cell took no time"
        clock[0] = 40.0
        shown(outcome(tmp_path, "ok", seed=1))
        assert shown.time_left() == "80 s", "two cells of 40 seconds"
        clock[0] = 400.0
        shown(outcome(tmp_path, "failed", seed=2))
        assert shown.time_left() == "3 min", "one cell of 200 seconds"
        shown(outcome(tmp_path, "ok", seed=3))
        assert shown.time_left() == "", "nothing is left"
    lines = written.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["1/4", "2/4", "3/4", "4/4"]
    assert lines[1].endswith("2.5 nats a byte  (80 s left)") and "left" not in lines[3]


def test_running_cells_are_shown_and_a_torn_beat_is_passed_over(
    tmp_path: Path, clock: list[float]
) -> None:
    shown, _ = progress(tmp_path, 2)
    beat = {"cell": "mlp_gate seed 0", "share": 0.25, "loss": 3.0}
    (tmp_path / "a.progress").write_text(json.dumps(beat), encoding="utf-8")
    (tmp_path / "b.progress").write_text("{", encoding="utf-8")
    first, *others = shown._running().plain.splitlines()
    assert first == "0/2 cells"
    assert [line.split() for line in others] == [
        ["mlp_gate", "seed", "0", "25%", "3.0000", "nats", "a", "byte"]
    ]
