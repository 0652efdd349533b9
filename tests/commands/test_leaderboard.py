"""Rendering the board, and finding out that it is stale."""

from pathlib import Path

import pytest

from bench.cli import main
from bench.record.store import target_of


def test_a_stale_board_is_told_with_what_changed(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board = runs / "leaderboard.md"
    check = ["leaderboard", "--results", str(runs), "--check"]
    assert main(check) == 0
    fresh = board.read_text(encoding="utf-8")
    board.write_text(fresh.replace("mlp_gate", "my_gate"), encoding="utf-8")
    capsys.readouterr()
    assert main(check) == 1
    said = capsys.readouterr().out
    assert "-" in said and "my_gate" in said and "mlp_gate" in said
    assert main(["leaderboard", "--results", str(runs)]) == 0
    assert board.read_text(encoding="utf-8") == fresh


def test_an_edited_record_stops_the_board_by_name(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = runs / "tiny" / "hash" / "b50-flops" / "seed-0.json"
    record = target_of(path)
    assert record is not None
    record.write_bytes(record.read_bytes().replace(b'"seed": 0', b'"seed": 1'))
    assert main(["leaderboard", "--results", str(runs)]) == 2
    told = capsys.readouterr().err
    assert record.name in told and told.count("\n") == 1


def test_a_board_that_is_not_there_is_an_error_with_the_command_that_makes_it(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (runs / "leaderboard.md").unlink()
    assert main(["leaderboard", "--results", str(runs), "--check"]) == 2
    told = capsys.readouterr().err
    assert "runs/leaderboard.md does not exist. Run `python -m bench leaderboard" in told
