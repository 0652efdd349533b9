"""Run many cells on this machine, in single-threaded processes side by side."""

import os
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import replace
from queue import SimpleQueue

from bench.runner.cells import Cell
from bench.runner.isolation import (
    FreshProcess,
    end_processes,
    hold_back_interrupts,
    start_tracker,
)
from bench.runner.resume_cell import CellResult, Job, resume_cell

DIED = "its process died (out of memory, or killed); run the same command again to resume"
LOOKS = 40
"""Largest number of looks. A thread whose process died while it started may wait for ever."""
LOOK_AGAIN_SECONDS = 0.05
"""Time between two looks of an interrupted run at its processes."""


def run_cells(
    cells: Sequence[Cell],
    job: Job,
    workers: int,
    report: Callable[[CellResult], None] = lambda _: None,
    starting: Callable[[Cell], None] = lambda _: None,
) -> list[CellResult]:
    """Run the cells that have no record yet; each worker writes its own.

    A record of the same content key is kept. A cell that failed is retried once per run, unless
    another process retried it after this run began. A cell that another run on the same store is
    running is left to that run, and looked at again at the end. A cell that was killed continues
    from its last checkpoint.

    Args:
        cells: the cells to run, in order.
        job: folder of the records, and the command of the run.
        workers: number of processes; 0 runs the cells in this one, except those with a plugin's
            code.
        report: called with each result as it comes.
        starting: called with each cell that a worker takes up, from any thread.
    """
    results: list[CellResult] = []
    pending, job = list(cells), replace(job, failed_since=time.time())
    # The second round waits for cells that another run had in hand.
    for patient in (False, True):
        busy: list[Cell] = []
        with closing(_run(pending, job, workers, patient, starting)) as finished:
            for result in finished:
                if result.status == "busy":
                    busy.append(result.cell)
                    continue
                results.append(result)
                report(result)
        pending = busy
    return results


def _run(
    cells: Sequence[Cell], job: Job, workers: int, patient: bool, starting: Callable[[Cell], None]
) -> Generator[CellResult]:
    if workers:
        yield from _in_processes(cells, job, workers, patient, starting)
        return
    for cell in cells:
        if cell.outside:
            yield from _in_processes([cell], job, 1, patient, starting)
        else:
            starting(cell)
            yield resume_cell(cell, job, patient)


def _in_processes(
    cells: Sequence[Cell], job: Job, workers: int, patient: bool, starting: Callable[[Cell], None]
) -> Generator[CellResult]:
    """Yield results as they come, from single-threaded processes."""
    # Threads must be fixed before a worker imports torch, so by environment.
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    count = min(workers, len(cells)) or 1
    job = replace(job, beside=count - 1)
    idle: SimpleQueue[FreshProcess] = SimpleQueue()
    for _ in range(count):
        idle.put(FreshProcess(quiet=True))

    def run(cell: Cell) -> CellResult:
        worker = idle.get()
        try:
            starting(cell)
            return worker.run(resume_cell, cell, job, patient)
        except BrokenProcessPool:
            return CellResult(cell, "crashed", DIED, 0.0)
        finally:
            # A plugin may have changed the state of its process.
            if cell.outside:
                worker.close()
            idle.put(worker)

    prefix = f"cells-{id(idle)}-"
    start_tracker()
    threads = ThreadPoolExecutor(count, prefix, initializer=hold_back_interrupts)
    try:
        for future in as_completed([threads.submit(run, cell) for cell in cells]):
            yield future.result()
    except BaseException:
        # One thread may be about to start a process, so look again until none is left.
        threads.shutdown(wait=False, cancel_futures=True)
        for _ in range(LOOKS):
            end_processes()
            time.sleep(LOOK_AGAIN_SECONDS)
            if not any(thread.name.startswith(prefix) for thread in threading.enumerate()):
                break
        raise
    threads.shutdown()
    for _ in range(count):
        idle.get().close()
