"""Which records count in a study, and what becomes of the others."""

from pathlib import Path
from statistics import fmean

import pytest

from bench.record import read_records, write_record
from bench.study.results import SizeResults, collect
from tests.study import made


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
    first = next(one for one in found.judged if (one.claim, one.setting) == (0, "half"))
    wanted = fmean(losses["mlp_gate", seed] - losses["random@ffn", seed] for seed in range(3))
    assert first.found.difference == pytest.approx(wanted)
    assert first.found.seeds == (0, 1, 2) and first.note == ""
    assert found.verdicts == ("reproduced", "reproduced")
    assert not found.missing and not found.apart and len(found.records) == 18


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
