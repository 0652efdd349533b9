"""`bench reproduce`: the right row is rebuilt, and the right records are taken."""

import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.cli import main
from bench.commands.reproduce import row_records
from bench.config.read_suite import parse_suite
from bench.config.row import RowConfig
from bench.errors import UserError
from bench.record import Record, record_path, write_record
from bench.record.store import target_of
from bench.runner.cells import Cell, sensitivity_rows
from bench.runner.resolve import resolve
from bench.runner.resume_cell import CellResult
from bench.runner.weights import recorded_cell
from tests import world
from tests.board.synthetic import QUICK, record
from tests.commands.test_plan_rows import PLUGIN

pytestmark = pytest.mark.usefixtures("forked")
AGAIN = ["--results", "runs", "--suite", "tiny", "--out", "again", "--workers", "0"]


def a_record(cell: Cell) -> Record:
    """A record that says of itself that it is of this cell."""
    resolved = resolve(cell)
    made = record(QUICK[0], cell.seed, provenance={"config": cell.suite.canonical()})
    return made.model_copy(update={"key": resolved.key, "cell": resolved.cell_id, "row": cell.row})


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TOKEN_ROUTING_BENCH_CACHE", str(tmp_path / "cache"))
    data = world.suite_data(world.write_text(tmp_path), sensitivity={"lr_scales": [0.5]})
    return parse_suite(data, "tiny")


def test_a_row_at_another_rate_is_rebuilt_at_that_rate(suite: Any) -> None:
    (half, *_) = sensitivity_rows(suite, suite.rows)
    assert (half.name, half.lr_scale) == ("mlp_gate@lr0.5", 0.5)
    made = a_record(Cell(suite, half, 100))
    again = recorded_cell(made, ())
    assert again.row.lr_scale == 0.5
    assert resolve(again).key == made.key


def test_plugins_that_the_suite_names_are_loaded_where_they_still_are(
    suite: Any, tmp_path: Path
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN, encoding="utf-8")
    named = suite.model_copy(update={"plugins": (str(file),)})
    with world.own_registry():
        row = RowConfig.model_validate("of_the_suite")
        made = a_record(Cell(named, row, 0, (file,), outside=True))
    again = recorded_cell(made, ())
    assert again.outside and again.plugin_files == recorded_cell(made, (file,)).plugin_files == (
        file,
    )
    file.unlink()
    assert not recorded_cell(a_record(Cell(named, named.rows[0], 0)), ()).outside
    with pytest.raises(UserError, match=r"Unknown router 'of_the_suite'.*add --plugin FILE.py"):
        recorded_cell(made, ())


def test_several_budgets_or_modes_are_never_mixed(suite: Any, tmp_path: Path) -> None:
    def write(**changes: Any) -> None:
        one = a_record(Cell(suite.model_copy(update=changes), suite.rows[0], 0))
        write_record(one, record_path(tmp_path, one.cell))

    asked = Namespace(results=tmp_path, suite="tiny", row="mlp_gate", budget=None, match=None)
    write()
    assert len(row_records(asked)) == 1
    write(budget=0.25)
    with pytest.raises(UserError, match=r"records at --budget 0.25 and 0.5. Name one"):
        row_records(asked)
    write(match="tokens", budget=0.25)
    quarter = Namespace(**{**vars(asked), "budget": 0.25})
    with pytest.raises(UserError, match="records at --match flops and tokens"):
        row_records(quarter)
    (found,) = row_records(Namespace(**{**vars(quarter), "match": "tokens"}))
    assert (found.cell.budget, found.cell.match) == (0.25, "tokens")
    with pytest.raises(UserError, match=r"--budget is 0.75; row 'mlp_gate' has records at 0.25"):
        row_records(Namespace(**{**vars(asked), "budget": 0.75}))


def test_why_a_rerun_failed_is_shown(
    suite: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A rate at which the loss is no number."""
    wild = suite.rows[0].model_copy(update={"lr_scale": 1e38})
    one = a_record(replace(Cell(suite, wild, 0)))
    write_record(one, record_path(tmp_path / "results", one.cell))
    where = ["--results", str(tmp_path / "results"), "--out", str(tmp_path / "again")]
    assert main(["reproduce", "mlp_gate", "--suite", "tiny", "--workers", "0", *where]) == 1
    said = capsys.readouterr().out
    assert "mlp_gate seed 0: " in said and "not finite" in said
    assert "inconclusive" in said


def test_each_router_seed_is_rerun_and_a_seed_is_their_mean(
    place: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"name": "mlp_gate", "router_seeds": [0, 2]},
        {"name": "random@ffn", "role": "control", "options": {"over": "ffn"}},
    ]
    world.write_suite(place / "tiny.yaml", elsewhere / "text.jsonl", rows=rows)
    run = ["run", "--suite", "tiny.yaml", "--routers", "all", "--seeds", "2"]
    assert main([*run, "--workers", "0"]) == 0
    # two replicas of mlp_gate, and the control
    assert "2 rows x 2 seeds, 6 cells" in capsys.readouterr().out
    assert main(["reproduce", "mlp_gate", *AGAIN]) == 0
    said = capsys.readouterr().out
    assert "mlp_gate: confirmed: every seed repeats its loss" in said
    assert [line.split()[:2] for line in said.splitlines()[-5:-1]] == [
        *(["0", "0"], ["0", "2"], ["1", "0"], ["1", "2"])
    ]
    assert len(list(Path("again").rglob("seed-*-router-2.json"))) == 2


def test_an_honest_record_is_confirmed(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "mlp_gate", *AGAIN]) == 0
    assert "mlp_gate: confirmed" in capsys.readouterr().out
    assert len(list(Path("again").rglob("seed-0.json"))) == 1
    assert sorted(runs.rglob("again*")) == []


def test_an_earlier_rerun_confirms_no_cell_that_crashed_now(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["reproduce", "mlp_gate", *AGAIN]) == 0

    def crashed(cell: Cell, *_: object, **__: object) -> CellResult:
        return CellResult(cell, "crashed", "no memory", 0.0)

    monkeypatch.setattr("bench.runner.schedule.resume_cell", crashed)
    capsys.readouterr()
    assert main(["reproduce", "mlp_gate", *AGAIN]) == 1
    assert "mlp_gate: inconclusive: " in capsys.readouterr().out


def test_a_record_of_several_ranks_is_refused_before_anything_runs(
    suite: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = suite.model_copy(update={"parallel": "ddp", "ranks": 2})
    one = a_record(Cell(shared, shared.rows[0], 0))
    write_record(one, record_path(tmp_path / "results", one.cell))
    where = ["--results", str(tmp_path / "results"), "--out", str(tmp_path / "again")]
    assert main(["reproduce", "mlp_gate", "--suite", "tiny", "--workers", "0", *where]) == 2
    assert "Row 'mlp_gate' was trained on 2 ranks" in capsys.readouterr().err
    assert not (tmp_path / "again").exists()


def test_a_record_of_a_gpu_is_refused_where_there_is_none(
    suite: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = a_record(Cell(suite.model_copy(update={"device": "cuda:99"}), suite.rows[0], 0))
    write_record(one, record_path(tmp_path / "results", one.cell))
    where = ["--results", str(tmp_path / "results"), "--out", str(tmp_path / "again")]
    assert main(["reproduce", "mlp_gate", "--suite", "tiny", *where]) == 2
    assert "device is 'cuda:99', which this machine does not offer" in capsys.readouterr().err


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


def test_a_suite_may_be_named_by_its_file(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.yaml"
    own.write_text((runs.parent / "tiny.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    again = [word if word != "tiny" else str(own) for word in AGAIN]
    assert main(["reproduce", "mlp_gat", *again]) == 2
    assert "Available: hash, mlp_gate." in capsys.readouterr().err
    assert main(["reproduce", "mlp_gate", "--suite", "absent.yaml"]) == 2
    assert "absent.yaml" in capsys.readouterr().err
