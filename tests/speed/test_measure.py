"""A whole measurement of two rows: its parts, and their sums."""

from pathlib import Path

import pytest

from bench.config.row import RowConfig
from bench.data import load_corpus
from bench.runner.cells import Cell
from bench.speed.measure import PLAIN, measure_speeds
from tests import world


@pytest.mark.usefixtures("forked")
def test_rows_are_compared_with_the_first_and_parts_add_up(tmp_path: Path):
    suite = world.suite(world.write_text(tmp_path))
    rows = [RowConfig(name="dense", role="bracket"), suite.row("mod")]
    told: list[str] = []
    cells = [Cell(suite, row, 0) for row in rows]
    found = measure_speeds(cells, load_corpus(suite.data), 1, 1, "command", True, True, told.append)
    dense, mod = found.rows
    assert (dense.row, mod.row, found.reference) == ("dense", "mod", "dense")
    assert PLAIN not in {row.row for row in found.rows}
    for work in dense.works.values():
        assert (work.relative, work.active, work.executed) == (1, 1, 1)
    assert set(mod.works) == {"step", "evaluation"}
    # Half of two of four layers is saved, as the budget says.
    assert 0.6 < mod.works["step"].active < 1 and mod.works["step"].executed < 1
    assert all(sum(row.parts.values()) == pytest.approx(1) for row in found.rows)
    assert "times a plain loop" in {one.unit for one in found.yardsticks}
    # A tiny cell decodes too: mod keeps less than the keys and values of dense.
    caches = {(one.row, one.batch): one.cache_bytes for one in found.decoding}
    assert len(caches) == 6 and all(caches["mod", n] < caches["dense", n] for n in (1, 8, 64))
    # A block for half of the tokens keeps fewer activations.
    memories = [row.memory.tensors_mb for row in found.rows if row.memory]
    assert len(memories) == 2 and memories[1] < memories[0]
    assert found.threads == 1 and told[0] == "preparing 2 rows"
