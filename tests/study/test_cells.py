"""The cells of a study: its grid times its seeds, without the rows that a setting cannot run."""

from pathlib import Path

import pytest

from bench.study.cells import study_cells
from tests import world
from tests.study import made


def test_cells_are_the_grid_times_the_seeds_and_the_rest_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN_ROUTING_BENCH_CACHE", str(tmp_path / "cache"))
    suite = world.write_suite(tmp_path / "tiny.yaml", world.write_text(tmp_path))
    settings = {
        "half": {"suite": str(suite)},
        "quarter": {"suite": str(suite), "set": {"budget": 0.25}},
    }
    rows = [
        *made.data()["rows"],
        {"name": "planted_oracle", "settings": ["quarter"], "role": "informed"},
    ]
    sizes = {"small": {"seeds": 2, "first_seed": 7, "core_minutes": 1}}
    declared = made.study(settings=settings, rows=rows, sizes=sizes)
    cells, skipped = study_cells(declared, declared.size("small"))
    names = ["mlp_gate", "mlp_gate@wide", "random@ffn"]
    for setting, budget in (("half", 0.5), ("quarter", 0.25)):
        found = cells[setting]
        assert {(one.row.name, one.seed) for one in found} == {
            (name, seed) for name in names for seed in (7, 8)
        }
        assert len(found) == 2 * len(names)
        assert {one.suite.budget for one in found} == {budget}
    (line,) = skipped
    assert line.startswith("planted_oracle in quarter: it needs the right path")
