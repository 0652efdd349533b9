"""The status of a cell whose training ran away."""

from math import log
from pathlib import Path

import pytest

from bench.runner.cells import Cell
from bench.runner.resolve import resolve
from bench.runner.run_cell import run_cell
from tests import world

VOCAB = 256


def test_a_run_whose_loss_ran_away_is_diverged_and_says_its_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN_ROUTING_BENCH_CACHE", str(tmp_path / "cache"))
    train = {"reference_tokens": 1024, "batch_size": 4, "probes": 2, "muon_lr": 0.02}
    wild = world.suite(world.write_text(tmp_path), train={**train, "adam_lr": 50.0})
    record = run_cell(resolve(Cell(wild, wild.row("mlp_gate"), 0)), "test", tmp_path)
    assert record.status == "diverged"
    assert record.loss is not None and record.loss > 2 * log(VOCAB)
    assert "nats a token after training" in record.reason
