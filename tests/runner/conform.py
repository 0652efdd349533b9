"""The properties of an executor, as functions that the tests of each executor call."""

from pathlib import Path

import pytest

from bench.executors.executor import Executor
from bench.record import read_record
from bench.runner import schedule
from bench.runner.schedule import run_cells
from tests import world
from tests.runner import dying
from tests.runner.jobs import job, place, run_here


def same_records(executor: Executor, text: Path, folder: Path) -> None:
    """Its records are those of one process, to the byte apart from times."""
    cells = [world.cell(text, router) for router in ("mlp_gate", "hash")]
    run_here(cells, job(folder / "here"), 0)
    results = run_cells(cells, job(folder / "there"), executor)
    assert {result.status for result in results} == {"ok"}, results
    for cell in cells:
        here, there = (read_record(place(cell, folder / name)) for name in ("here", "there"))
        assert world.without_clock(here) == world.without_clock(there)
    again = run_cells(cells, job(folder / "there"), executor)
    assert {result.status for result in again} == {"kept"}


def goes_on_from_the_checkpoint(
    executor: Executor, text: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cell whose worker is killed in mid-run is taken up from its checkpoint."""
    cell = world.cell(text)
    run_here([cell], job(folder / "whole"), 0)
    monkeypatch.setattr(schedule, "resume_cell", dying.die_once)
    killed = folder / "killed"
    (result,) = run_cells([cell], job(killed, checkpoint_seconds=0), executor)
    assert result.status == "ok", result
    assert dying.place_of(cell, killed, "resumed").read_text().startswith("True")
    whole, resumed = (read_record(place(cell, root)) for root in (folder / "whole", killed))
    assert world.without_clock(whole) == world.without_clock(resumed)
