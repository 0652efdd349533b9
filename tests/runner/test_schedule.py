import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from bench.cli import main
from bench.executors.executor import Executor, WorkerDied
from bench.executors.isolation import INTERRUPTS, FreshProcess
from bench.executors.pool import Pool
from bench.record import read_record
from bench.runner.cells import Cell
from bench.runner.resolve import resolve
from bench.runner.resume_cell import CHECKPOINTS, CellResult, resume_cell
from bench.runner.schedule import run_cells
from tests import world
from tests.runner.jobs import admit, from_plugin, job, place, run_here


def test_a_cell_in_other_hands_is_left_to_them_and_seen_to_at_the_end(
    text: Path, tmp_path: Path
) -> None:
    first, second = world.cell(text), world.cell(text, seed=1)
    lock = FileLock(tmp_path / CHECKPOINTS / f"{resolve(first).key}.lock")
    seen: list[str] = []

    def report(outcome: CellResult) -> None:
        seen.append(f"{outcome.cell} {outcome.status}")
        lock.release(force=True)

    (tmp_path / CHECKPOINTS).mkdir()
    with lock:
        assert resume_cell(first, job(tmp_path, "now"), wait=False).status == "busy"
        run_here([first, second], job(tmp_path, "both"), 0, report)
    assert seen == ["mlp_gate seed 1 ok", "mlp_gate seed 0 ok"]


def run_quietly(command: list[str], log: Path) -> int:
    """Run the bench in this process, with its prints in a file."""
    with log.open("w", encoding="utf-8") as stream, redirect_stdout(stream):
        return main(command)


@pytest.mark.usefixtures("forked", "undrawn")
def test_two_runs_on_one_tree_share_the_cells(text: Path, tmp_path: Path) -> None:
    suite = world.write_suite(tmp_path / "suite.yaml", text)
    out, logs = tmp_path / "out", [tmp_path / "first.log", tmp_path / "second.log"]
    command = ["run", "--routers", "random@ffn", "--suite", str(suite), "--seeds", "2"]
    command += ["--workers", "0", "--out", str(out)]
    with Pool(2) as pool, ThreadPoolExecutor(2) as threads:
        codes = list(threads.map(partial(pool.run, run_quietly, command), logs))
    outputs = [log.read_text(encoding="utf-8") for log in logs]
    assert codes == [0, 0], outputs
    words = Counter(
        word for output in outputs for word in output.split() if word in ("ok", "kept", "crashed")
    )
    assert words == {"ok": 2, "kept": 2}, outputs
    assert sum(path.name.startswith("seed-") for path in out.rglob("*.json")) == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_timings_say_how_many_workers_ran_beside(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(FreshProcess, "run", lambda _, function, *given: function(*given))
    cells = [world.cell(text, seed=seed) for seed in range(2)]
    run_here(cells, job(tmp_path), workers)
    speeds = [read_record(place(cell, tmp_path)).speed for cell in cells]
    assert [speed and speed.beside for speed in speeds] == [workers - 1] * 2


@pytest.mark.usefixtures("forked")
def test_a_cell_whose_process_dies_takes_no_other_with_it(
    text: Path, tmp_path: Path, harmful: Path
) -> None:
    cells = from_plugin(text, harmful, "killed", "harmless")
    admit(tmp_path / "out", *cells)
    outcomes = {
        outcome.cell.row.name: outcome for outcome in run_here(cells, job(tmp_path / "out", "c"), 1)
    }
    assert outcomes["killed"].status == "crashed" and "process died" in outcomes["killed"].detail
    assert outcomes["harmless"].status in ("ok", "off_budget")
    assert not place(cells[0], tmp_path / "out").exists()


class Dying(Executor):
    """An executor whose workers die so many times for each cell, and then answer at once."""

    workers = 2

    def __init__(self, deaths: int) -> None:
        self.deaths = deaths
        self.calls: Counter[str] = Counter()
        self.ended = False

    def run(self, function: Any, *arguments: Any, fresh: bool = False) -> Any:
        (cell, *_) = arguments
        self.calls[cell.digest] += 1
        if self.calls[cell.digest] <= self.deaths:
            raise WorkerDied("the node is gone")
        return CellResult(cell, "diverged", "", 1.0)

    def end(self) -> None:
        self.ended = True

    def close(self) -> None: ...


@pytest.mark.parametrize("deaths", [0, 2, 3])
def test_a_cell_whose_worker_dies_is_begun_again_twice(
    text: Path, tmp_path: Path, deaths: int
) -> None:
    executor, cells = Dying(deaths), [world.cell(text, seed=seed) for seed in range(3)]
    results = run_cells(cells, job(tmp_path), executor)
    # A cell that diverged is a result, and is not run again.
    assert set(executor.calls.values()) == {min(deaths + 1, 3)}
    assert {result.status for result in results} == {"crashed" if deaths == 3 else "diverged"}
    if deaths == 3:
        assert "its process died (the node is gone), 3 times" in results[0].detail


def test_a_run_that_is_broken_off_begins_nothing_again(text: Path, tmp_path: Path) -> None:
    executor, told = Dying(1), RuntimeError("broken off")

    def starting(_: Cell) -> None:
        raise told

    with pytest.raises(RuntimeError, match="broken off"):
        run_cells([world.cell(text)], job(tmp_path), executor, starting=starting)
    assert executor.ended and not executor.calls


def test_records_that_are_known_need_no_worker(text: Path, tmp_path: Path) -> None:
    executor, cells = Dying(0), [world.cell(text, seed=seed) for seed in range(2)]
    resume_cell(cells[1], job(tmp_path))
    known = frozenset({cells[1].digest})
    results = run_cells(cells, job(tmp_path), executor, known=known)
    assert [(one.cell.seed, one.status) for one in results] == [(1, "kept"), (0, "diverged")]
    assert list(executor.calls) == [cells[0].digest]


def test_a_failure_in_another_run_meanwhile_is_not_repeated(text: Path, tmp_path: Path) -> None:
    # a budget out of reach
    first, failing = world.cell(text), world.cell(text, seed=1, budget=0.01)
    path = place(failing, tmp_path)
    resume_cell(failing, job(tmp_path, "before"))
    seen: list[str] = []

    def report(outcome: CellResult) -> None:
        if not seen:  # the other run, while this one is at its first cell
            resume_cell(failing, job(tmp_path, "beside"))
        seen.append(outcome.status)

    run_here([first, failing], job(tmp_path, "both"), 0, report)
    assert seen == ["ok", "failed"]
    assert read_record(path).provenance.command == "beside"
    run_here([failing], job(tmp_path, "after"), 0)
    assert read_record(path).provenance.command == "after"


def test_the_main_thread_alone_hears_an_interrupt(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread that takes the signal leaves the main one waiting for its workers."""
    masks: list[set[int]] = []

    def run(_: FreshProcess, __: object, cell: Cell, *___: object) -> CellResult:
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))
        return CellResult(cell, "ok", "", 0.0)

    monkeypatch.setattr(FreshProcess, "run", run)
    run_here([world.cell(text), world.cell(text, seed=1)], job(tmp_path, "c"), 2)
    assert [mask >= INTERRUPTS for mask in masks] == [True, True]
    assert not INTERRUPTS & signal.pthread_sigmask(signal.SIG_BLOCK, [])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_reader_that_goes_away_at_the_start_of_a_cell_ends_the_run(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """The line of a start is printed by the thread of a worker, and its error must not be lost."""
    monkeypatch.setattr(FreshProcess, "run", lambda _, function, *given: function(*given))
    started: list[Cell] = []

    def starting(cell: Cell) -> None:
        started.append(cell)
        raise BrokenPipeError

    cells = [world.cell(text, seed=seed) for seed in range(2)]
    with pytest.raises(BrokenPipeError):
        run_here(cells, job(tmp_path), workers, starting=starting)
    assert started[0] in cells and not list(tmp_path.rglob("seed-*.json"))
