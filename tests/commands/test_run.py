from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from bench.board import build_board
from bench.cli import main
from bench.record import Record, read_records
from bench.runner.cells import Cell
from tests import world

pytestmark = pytest.mark.usefixtures("forked")
PLUGIN = """
from bench.routing import FFN_GATE, Router
from bench.routing.registry import register
from bench.routing.capacity import gate_plan
import torch


class Half(Router):
    paths = FFN_GATE

    def forward(self, inputs):
        seq = inputs.tokens.shape[1]
        return gate_plan((torch.arange(seq) < seq // 2).expand(inputs.tokens.shape), seq // 2)


@register("wants_truth", family="tests")
class WantsTruth(Half):
    needs = frozenset({"truth"})


@register("breaks", family="tests")
class Breaks(Half):
    def forward(self, inputs):
        if len(inputs.tokens) > 1:  # not while it is priced, on one sequence
            raise RuntimeError("broken on purpose")
        return super().forward(inputs)
"""


@pytest.fixture
def suite(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "plugin.py").write_text(PLUGIN, encoding="utf-8")
    with world.own_registry():
        yield world.write_suite(tmp_path / "tiny.yaml", world.write_text(tmp_path))


def run(suite: Path, *arguments: str) -> int:
    folder = suite.parent
    shared = (
        "--suite",
        str(suite),
        "--plugin",
        str(folder / "plugin.py"),
        "--out",
        str(folder / "runs"),
        "--workers",
        "0",
    )
    return main(["run", *shared, *arguments])


def records(suite: Path) -> dict[tuple[str, int], Record]:
    return {
        (record.cell.row, record.cell.seed): record
        for _, record in read_records(suite.parent / "runs")
    }


def test_a_cell_that_breaks_is_recorded_and_the_rest_go_on(
    suite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(suite, "--routers", "breaks,mlp_gate", "--seeds", "1") == 1
    found = records(suite)
    assert found["breaks", 0].status == "invalid"
    assert (
        found["breaks", 0].reason.startswith("`bench check breaks` fails ")
        and "RuntimeError: broken on purpose" in found["breaks", 0].reason
    )
    assert found["mlp_gate", 0].loss is not None
    assert "Traceback" not in capsys.readouterr().err
    assert "broken on purpose" in (suite.parent / "runs" / "leaderboard.md").read_text(
        encoding="utf-8"
    )


def test_a_router_whose_needs_the_suite_cannot_meet_is_skipped_with_the_reason(
    suite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(suite, "--routers", "wants_truth,mlp_gate", "--seeds", "1") == 0
    assert set(records(suite)) == {("mlp_gate", 0)}
    assert "skipped  wants_truth: it needs" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_run_without_a_row_that_can_run_is_refused(
    suite: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin = str(suite.parent / "plugin.py")
    shared = (command, "--suite", str(suite), "--plugin", plugin)
    assert main([*shared, "--routers", "wants_truth"]) == 2
    told = capsys.readouterr().err
    assert "No row can run (wants_truth: it needs" in told and told.count("\n") == 1


def test_a_cell_without_weights_is_begun_again_for_them(
    suite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun: list[bool] = []
    for keep in ([], ["--keep-weights"], ["--keep-weights"]):
        assert run(suite, "--routers", "mlp_gate", "--seeds", "1", *keep) == 0
        begun.append("mlp_gate seed 0              started" in capsys.readouterr().out)
    assert begun == [True, True, False]


def test_an_official_run_varies_the_rates_of_a_plugin_in_its_own_process(
    suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[Cell] = []
    monkeypatch.chdir(suite.parent)
    monkeypatch.setattr("bench.commands.run.dry_run", lambda cells, *_: planned.extend(cells) or [])
    data = yaml.safe_load(suite.read_text(encoding="utf-8"))
    varied = {"sensitivity": {"lr_scales": [0.5]}, "rows": ["mlp_gate", "breaks"]}
    suite.write_text(yaml.safe_dump({**data, "plugins": ["plugin.py"], **varied}), encoding="utf-8")
    assert main(["run", "--suite", str(suite), "--seeds", "1", "--official", "--dry-run"]) == 0
    found = {cell.row.name: (cell.outside, cell.plugin_files) for cell in planned}
    files = (suite.parent / "plugin.py",)
    for row in ("breaks", "breaks@lr0.5", "breaks@lr1"):
        assert found[row] == (True, files)
    assert found["mlp_gate@lr0.5"] == (False, ())


def test_a_control_that_the_suite_lacks_is_run_and_compared_with(
    suite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "random@experts-8-1.2"
    assert run(suite, "--routers", "adaptive_moe", "--seeds", "2") == 0
    assert f"added  {name}, the control of adaptive_moe: " in capsys.readouterr().out
    found = records(suite)
    assert set(found) == {(row, seed) for row in ("adaptive_moe", name) for seed in (0, 1)}
    assert {one.cell.control for one in found.values()} == {name, None}
    (board,) = build_board(suite.parent / "runs")
    assert board.judgement.outcomes["adaptive_moe", name].n == 2
    listed = [row["name"] for row in found[name, 0].provenance.config["rows"]]
    assert listed.count(name) == 1, "a rerun from the record finds the control"


def test_a_control_that_does_not_fit_is_refused_before_the_first_cell(
    suite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = yaml.safe_load(suite.read_text(encoding="utf-8"))
    rows = [{"name": "adaptive_moe", "control": "random@experts-1"}, data["rows"][-1]]
    suite.write_text(yaml.safe_dump({**data, "rows": rows}), encoding="utf-8")
    assert run(suite) == 2
    told = capsys.readouterr().err
    assert "Row 'adaptive_moe' chooses 1.2 of 8 experts in layers 1, 2; " in told
    assert told.count("\n") == 1 and not (suite.parent / "runs").exists()


def test_seed_start_and_set_reach_the_cells(suite: Path) -> None:
    assert (
        run(
            suite,
            "--routers",
            "mlp_gate",
            "--seeds",
            "2",
            "--seed-start",
            "7",
            "--set",
            "train.reference_tokens=512",
        )
        == 0
    )
    found = records(suite)
    assert set(found) == {("mlp_gate", 7), ("mlp_gate", 8)}
    assert all(
        record.provenance.config["train"]["reference_tokens"] == 512 for record in found.values()
    )


def test_a_misspelt_field_is_answered_with_the_nearest(
    suite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(suite, "--set", "train.batchsize=4") == 2
    assert "Did you mean 'train.batch_size'?" in capsys.readouterr().err


def test_impossible_looks_are_refused_before_a_cell_is_run(
    suite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        run(
            suite,
            "--routers",
            "mlp_gate",
            "--seeds",
            "1",
            "--set",
            "comparison={margin: 0.02, looks: [1]}",
        )
        == 2
    )
    assert "looks is [1]; give" in capsys.readouterr().err
    assert not (suite.parent / "runs").exists()


def test_records_of_a_suite_with_impossible_looks_serve_a_mended_suite(
    suite: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were made before such suites were refused.

    The same command with the suite mended keeps them, and `reproduce` reads them.
    """
    with monkeypatch.context() as patch:
        patch.setattr("bench.config.suite.possible", lambda looks: True)
        assert (
            run(
                suite, "--routers", "mlp_gate,hash", "--seeds", "1", "--set", "comparison.looks=[1]"
            )
            == 0
        )
    before = {path: path.read_bytes() for path in (suite.parent / "runs").rglob("seed-*.json")}
    assert (
        run(suite, "--routers", "mlp_gate,hash", "--seeds", "1", "--set", "comparison.looks=[2]")
        == 0
    )
    assert capsys.readouterr().out.count(" kept ") == 2
    assert "declared at seeds 1, which cannot be held" in (
        suite.parent / "runs" / "leaderboard.md"
    ).read_text(encoding="utf-8")
    assert {path: path.read_bytes() for path in before} == before
    again = [
        "--results",
        str(suite.parent / "runs"),
        "--out",
        str(suite.parent / "again"),
        "--suite",
        "tiny",
        "--workers",
        "0",
    ]
    assert main(["reproduce", "hash", *again]) == 0


def test_run_shows_the_card_of_own_text_and_a_line_of_other(
    suite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(suite, "--routers", "dense_matched", "--seeds", "1") == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("reading ") and first.endswith("later runs find it in the cache")
    assert "1 file, " in lines[0] and " bytes per token" in lines[0]
    assert lines[1] == "left out: nothing"
    assert any(line.startswith("domain ") and line.endswith(" overlap") for line in lines[:8])
