"""`bench speed` on a tiny suite: its file and its tables."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from bench.cli import main
from bench.errors import UserError
from bench.record.speed import read_speeds, write_speed
from bench.runner.cells import Cell
from bench.runner.resolve import resolve
from tests.commands.test_plan_rows import PLUGIN
from tests.record.test_speed import speed_run


def test_the_file_lies_in_the_tree(place: Path, capsys: pytest.CaptureFixture[str]):
    few = ["--repeats", "1", "--windows", "1", "--set", "train.batch_size=2"]
    command = ["speed", "--suite", "tiny.yaml", "--routers", "mlp_gate", "--backbone", "wide"]
    assert main([*command, "--set", "routed_layers=[1]", *few]) == 0
    said = capsys.readouterr().out
    (run,) = read_speeds(Path("runs"))
    assert [row.row for row in run.rows] == ["dense", "mlp_gate"]
    assert (run.backbone, run.batch_size, run.rounds) == ("wide", 2, 1)
    assert "time / dense" in said and f"runs/speed/{run.name}.json" in said


def test_an_official_file_keeps_its_rows(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """The file is refused before anything is timed, by the name that it would get."""
    monkeypatch.setattr("bench.commands.speed.require_clean_tree", lambda: None)
    monkeypatch.setattr("bench.speed.measure.measure_speeds", lambda *_: pytest.fail("timed"))
    path = write_speed(speed_run(suite="tiny", batch_size=4), Path("results"))
    before = path.read_bytes()
    assert main(["speed", "--suite", "tiny.yaml", "--routers", "mlp_gate", "--official"]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert f"{path} has rows that this run would remove: slow" in told
    assert path.read_bytes() == before


@pytest.mark.usefixtures("forked")
def test_rows_of_a_plugin_are_timed(place: Path, monkeypatch: pytest.MonkeyPatch):
    """Of the suite, or of the command line."""
    (place / "mine.py").write_text(PLUGIN, encoding="utf-8")
    timed: list[Sequence[Cell]] = []

    def stop(cells: Sequence[Cell], *_: object) -> None:
        timed.append(cells)
        raise UserError("that was all")

    monkeypatch.setattr("bench.speed.measure.measure_speeds", stop)
    command = ["speed", "--suite", "tiny.yaml", "--routers", "of_the_suite"]
    assert main([*command, "--plugin", "mine.py"]) == 2
    data = yaml.safe_load(Path("tiny.yaml").read_text(encoding="utf-8"))
    text = yaml.safe_dump({**data, "plugins": ["mine.py"]})
    Path("tiny.yaml").write_text(text, encoding="utf-8")
    assert main(command) == 2
    for dense, mine in timed:
        assert (dense.row.name, dense.outside) == ("dense", False)
        assert mine.outside and resolve(mine).entry.name == "of_the_suite"
    assert len(timed) == 2


@pytest.mark.parametrize("count", ["0", "many"])
def test_a_senseless_number_is_refused_in_one_line(count: str, capsys: pytest.CaptureFixture[str]):
    assert main(["speed", "--repeats", count]) == 2
    told = capsys.readouterr().err
    assert f"it is '{count}'; give a whole number, 1 or more" in told and told.count("\n") == 1
