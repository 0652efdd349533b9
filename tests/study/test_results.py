"""The records that count in a study, and the place of the others."""

from pathlib import Path
from statistics import fmean

import pytest

from bench.board.measures import mean_interval
from bench.record import read_record, read_records, record_path, write_record
from bench.study.measures import find_measure
from bench.study.page import render_page
from bench.study.results import SizeResults, collect, coordinates
from tests.study import made
from tests.study.test_measures import curve


def results(folder: Path) -> SizeResults:
    (found,) = collect(made.study(), folder)
    return found


def test_differences_are_means_over_the_seeds_of_both_rows(tmp_path: Path) -> None:
    folder = made.fill(tmp_path, made.study())
    losses = {
        (one.cell.row, one.cell.seed): one.loss or 0.0
        for _, one in read_records(folder / "small" / "half")
    }
    found = results(folder)
    first = next(one for one in found.judged if (one.claim, one.settings) == (0, ("half",)))
    wanted = fmean(losses["mlp_gate", seed] - losses["random@ffn", seed] for seed in range(3))
    assert first.found.difference == pytest.approx(wanted)
    assert first.found.seeds == (0, 1, 2) and first.note == ""
    assert found.verdicts == ("reproduced", "reproduced")
    assert not found.missing and not found.apart and len(found.records) == 18


def test_a_seed_that_never_reaches_the_loss_is_not_left_out(tmp_path: Path) -> None:
    """The other seeds would be those with low losses."""
    comparison = {"row": "mlp_gate", "control": "random@ffn", "expect": "lower", "margin": 1.1}
    far = {**comparison, "measure": "flops_to:2.5", "settings": ["half"]}
    claims = [{"text": "It is fast.", "source": "this bench", "comparisons": [far]}]
    declared = made.study(claims=claims)
    folder = made.fill(tmp_path, declared, curve=curve(3.0, 2.0))
    (one,) = collect(declared, folder)[0].judged
    assert one.found.verdict == "refuted" and "reach" not in one.note
    (path,) = (folder / "small/half").rglob("mlp_gate/*/seed-1.json")
    slow = read_record(path).model_copy(update={"curve": curve(3.0, 2.6)})
    write_record(slow, path)
    (one,) = collect(declared, folder)[0].judged
    assert one.found.verdict == "open" and "did not reach the loss" in one.note


def test_the_best_of_several_settings_is_the_lowest_loss_of_each_seed(tmp_path: Path) -> None:
    claims = made.data()["claims"]
    claims[0]["comparisons"][0]["best"] = True
    declared = made.study(claims=claims)
    folder = made.fill(tmp_path, declared)
    losses = {
        (setting, record.cell.row, record.cell.seed): record.loss or 0.0
        for setting in ("half", "quarter")
        for _, record in read_records(folder / "small" / setting)
    }
    lowest = {
        (row, seed): min(losses[setting, row, seed] for setting in ("half", "quarter"))
        for row in ("mlp_gate", "random@ffn")
        for seed in range(3)
    }
    (found,) = collect(declared, folder)
    (one,) = [one for one in found.judged if one.claim == 0]
    assert one.settings == ("half", "quarter")
    wanted = fmean(lowest["mlp_gate", seed] - lowest["random@ffn", seed] for seed in range(3))
    assert one.found.difference == pytest.approx(wanted)
    assert "best of `half` and `quarter`" in render_page(declared, [found])
    # A seed that one setting lacks has no best.
    (folder / "small/half/quick/mlp_gate/b50-flops/seed-1.json").unlink()
    (found,) = collect(declared, folder)
    assert next(one for one in found.judged if one.claim == 0).found.seeds == (0, 2)


def test_a_seed_of_a_study_is_the_mean_over_its_router_seeds(tmp_path: Path) -> None:
    rows = made.data()["rows"]
    rows[0]["router_seeds"] = [0, 2]
    declared = made.study(rows=rows)
    assert declared.num_cells(declared.size("small")) == 2 * 3 * (2 + 1 + 1)
    folder = made.fill(tmp_path, declared)
    (bare,) = collect(declared, folder)
    lacking = {(setting, row): seeds for setting, row, seeds in bare.missing}
    assert lacking == {(setting, "mlp_gate"): (0, 1, 2) for setting in ("half", "quarter")}
    for setting in ("half", "quarter"):
        for seed in range(3):
            first, further = made.both(declared, setting, "mlp_gate", seed, (2.0, 2.2 + seed))
            write_record(first, record_path(folder / "small" / setting, first.cell))
            write_record(further, record_path(folder / "small" / setting, further.cell, 2))
    (found,) = collect(declared, folder)
    assert not found.missing and not found.apart
    (row,) = [one for one in found.rows["half"] if one.name == "mlp_gate"]
    assert coordinates(row, find_measure("loss")) == pytest.approx({0: 2.1, 1: 2.6, 2: 3.1})
    low, high = mean_interval([2.1, 2.6, 3.1])
    assert f"2.6000 [{low:.4f}, {high:.4f}]".replace("-", "−") in render_page(declared, [found])


def test_a_record_of_another_budget_is_no_cell_of_the_study(tmp_path: Path) -> None:
    folder = made.fill(tmp_path, made.study())
    (folder / "small" / "quarter").rename(folder / "small" / "gone")
    (folder / "small" / "half").rename(folder / "small" / "quarter")
    found = results(folder)
    assert {(setting, why) for setting, _, why in found.apart} == {
        ("quarter", "it was run with budget = 0.5")
    }
    assert len(found.apart) == 9 and found.records == []
    assert {one.found.verdict for one in found.judged} == {"not run"}


def test_seeds_beyond_the_size_do_not_count(tmp_path: Path) -> None:
    folder = made.fill(tmp_path, made.study())
    before = results(folder).judged
    write_record(
        made.one(made.study(), "half", "mlp_gate", 3),
        folder / "small/half/quick/mlp_gate/b50-flops/seed-3.json",
    )
    after = results(folder)
    assert after.judged == before
    ((setting, record, why),) = after.apart
    assert (setting, record.cell.seed) == ("half", 3)
    assert why == "the study does not list this cell"


def test_cells_without_a_record_are_listed_by_setting_and_row(tmp_path: Path) -> None:
    folder = made.fill(tmp_path, made.study())
    for path, record in list(read_records(folder / "small" / "half")):
        if record.cell.row == "mlp_gate@wide" and record.cell.seed > 0:
            path.unlink()
    assert results(folder).missing == (("half", "mlp_gate@wide", (1, 2)),)
