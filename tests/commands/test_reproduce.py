"""Rerunning a row from its records."""

import json
from pathlib import Path

import pytest

from bench.cli import main
from bench.record.store import target_of

AGAIN = ["--results", "runs", "--suite", "tiny", "--out", "again", "--workers", "0"]


def test_an_honest_record_is_confirmed(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "mlp_gate", *AGAIN]) == 0
    assert "mlp_gate: confirmed" in capsys.readouterr().out
    assert len(list(Path("again").rglob("seed-0.json"))) == 1
    assert sorted(runs.rglob("again*")) == []


def test_a_record_whose_loss_was_changed_is_noticed(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = target_of(runs / "tiny/mlp_gate/b50-flops/seed-0.json")
    assert path is not None
    data = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(data | {"loss": data["loss"] - 0.5}), encoding="utf-8")
    assert main(["reproduce", "mlp_gate", *AGAIN]) == 2
    assert "does not match its own digest" in capsys.readouterr().err


def test_a_row_without_a_record_is_answered_with_the_nearest(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", "mlp_gat", *AGAIN]) == 2
    told = capsys.readouterr().err
    assert "Unknown row 'mlp_gat'. Did you mean 'mlp_gate'? Available: hash, mlp_gate." in told
