"""Run many cells on the workers of an executor, side by side."""

import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import replace

from bench.executors.executor import Executor, WorkerDied
from bench.executors.isolation import hold_back_interrupts, start_tracker
from bench.runner.cells import Cell
from bench.runner.resume_cell import CellResult, Job, resume_cell

ATTEMPTS = 3
"""Times that a cell is begun whose worker dies. Each attempt continues from the checkpoint."""
LOOKS = 40
"""Largest number of looks. A thread whose worker died while it started may wait for ever."""
LOOK_AGAIN_SECONDS = 0.05
"""Time between two looks of an interrupted run at its workers."""


def run_cells(
    cells: Sequence[Cell],
    job: Job,
    executor: Executor,
    report: Callable[[CellResult], None] = lambda _: None,
    starting: Callable[[Cell], None] = lambda _: None,
    known: frozenset[str] = frozenset(),
) -> list[CellResult]:
    """Run the cells that have no record yet; each worker writes its own.

    A record of the same content key is kept. A cell that failed is retried once per run, unless
    another process retried it after this run began. A cell that another run on the same store is
    running is left to that run, and looked at again at the end. A cell that was killed continues
    from its last checkpoint. A cell whose worker dies is begun again at once, on any worker.

    Args:
        cells: the cells to run, in order.
        job: folder of the records, and the command of the run.
        executor: an open executor.
        report: called with each result as it comes.
        starting: called with each cell that a worker takes up, from any thread.
        known: digests of cells with a record, and with weights if the job keeps them. No worker is
            needed for them.
    """
    results: list[CellResult] = []
    job = replace(job, failed_since=time.time())
    for cell in (cell for cell in cells if cell.digest in known):
        results.append(resume_cell(cell, job))
        report(results[-1])
    pending = [cell for cell in cells if cell.digest not in known]
    # The second round waits for cells that another run had in hand.
    for patient in (False, True):
        busy: list[Cell] = []
        beside = max(0, min(executor.workers, len(pending)) - 1)
        one = _Attempts(executor, replace(job, beside=beside), patient, starting)
        with closing(one.of_each(pending)) as finished:
            for result in finished:
                if result.status == "busy":
                    busy.append(result.cell)
                    continue
                results.append(result)
                report(result)
        pending = busy
    return results


class _Attempts:
    """Run cells, each until its worker survives it or too many workers died.

    Args:
        executor: an open executor.
        job: the common part of the cells.
        patient: wait for other runs that run a cell.
        starting: called with each cell that a worker takes up.
    """

    def __init__(
        self, executor: Executor, job: Job, patient: bool, starting: Callable[[Cell], None]
    ) -> None:
        self.executor, self.job, self.patient, self.starting = executor, job, patient, starting
        self._stopping = threading.Event()

    def of_each(self, cells: Sequence[Cell]) -> Generator[CellResult]:
        """Yield results as they come. If the generator is left early, all workers are ended."""
        if not self.executor.workers:
            yield from map(self.of, cells)
            return
        prefix = f"cells-{id(self)}-"
        # This thread alone answers an interrupt; those of the workers never hear it.
        start_tracker()
        count = min(self.executor.workers, len(cells)) or 1
        threads = ThreadPoolExecutor(count, prefix, initializer=hold_back_interrupts)
        try:
            for future in as_completed([threads.submit(self.of, cell) for cell in cells]):
                yield future.result()
        except BaseException:
            self._stopping.set()
            # One thread may be about to start a worker, so look again until none is left.
            threads.shutdown(wait=False, cancel_futures=True)
            for _ in range(LOOKS):
                self.executor.end()
                time.sleep(LOOK_AGAIN_SECONDS)
                if not any(thread.name.startswith(prefix) for thread in threading.enumerate()):
                    break
            raise
        threads.shutdown()

    def of(self, cell: Cell) -> CellResult:
        """Return the result of one cell."""
        self.starting(cell)
        said = ""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                run = self.executor.run
                # Ranks cannot start another process that shares the cell.
                fresh = cell.outside and cell.suite.ranks == 1
                return run(resume_cell, cell, self.job, self.patient, fresh=fresh)
            except WorkerDied as died:
                said = f"its process died ({died}), {attempt} times"
                # An interrupted run ends its workers, and begins no cell again.
                if self._stopping.is_set():
                    break
        return CellResult(cell, "crashed", f"{said}; run the same command again to resume", 0.0)
