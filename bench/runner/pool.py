"""Run many cells on this machine.

Single-threaded processes side by side, resumable, one writer a record.
"""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue

from filelock import FileLock, Timeout

from bench.errors import UserError, let_through, located
from bench.record import Record
from bench.runner.cells import Cell

SUPERSEDED = ".superseded"
CHECKPOINTS = ".checkpoints"
PROGRESS = ".progress"
CHECKPOINT_SECONDS = 20.0
PARENT_SECONDS = 2.0
"""How often a worker looks whether its parent is still there."""


@dataclass(frozen=True)
class Outcome:
    """What came of one cell.

    Attributes:
        cell: the cell.
        status: the record's status, "kept" for a record that was already there, "crashed" where
            there is none, or "busy" while another process runs the cell.
        detail: the loss, or what went wrong.
        seconds: wall-clock time.
    """

    cell: Cell
    status: str
    detail: str
    seconds: float


def run_cells(
    cells: Sequence[Cell],
    root: Path,
    command: str,
    workers: int,
    report: Callable[[Outcome], None] = lambda _: None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> list[Outcome]:
    """Run the cells that have no record yet; each worker writes its own.

    A record of the same content key is kept, but a cell that failed is tried again, unless that was
    while this run was under way: then another run has tried. A record of another key, from other
    code or configuration, is moved to `.superseded` below `root`, never deleted. Cells that another
    run on the same tree has in hand are left to it, and looked at again at the end. A cell that was
    killed goes on from its last checkpoint.

    Args:
        cells: what to run, in order.
        root: the tree of records.
        command: the command line, for the records.
        workers: processes; 0 runs the cells in this one.
        report: called with each outcome as it comes.
        checkpoint_seconds: time between two checkpoints of a cell.
    """
    outcomes: list[Outcome] = []
    pending = list(cells)
    began = time.time()
    for wait in (False, True):
        busy: list[Cell] = []
        task = partial(
            work,
            root=root,
            command=command,
            checkpoint_seconds=checkpoint_seconds,
            wait=wait,
            failed_since=began,
        )
        for outcome in _in_processes(pending, task, workers) if workers else map(task, pending):
            if outcome.status == "busy":
                busy.append(outcome.cell)
                continue
            outcomes.append(outcome)
            report(outcome)
        pending = busy
    return outcomes


def _in_processes(
    cells: Sequence[Cell], task: Callable[[Cell], Outcome], workers: int
) -> Iterator[Outcome]:
    """Outcomes as they come, from single-threaded processes."""
    # Threads must be fixed before a worker imports torch, so by environment.
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    count = min(workers, len(cells)) or 1
    idle: SimpleQueue[_Worker] = SimpleQueue()
    for _ in range(count):
        idle.put(_Worker())

    def run(cell: Cell) -> Outcome:
        worker = idle.get()
        try:
            return worker.run(task, cell)
        finally:
            if cell.outside:  # it may have left something in its process
                worker.close()
            idle.put(worker)

    with ThreadPoolExecutor(max_workers=count) as threads:
        try:
            for future in as_completed([threads.submit(run, cell) for cell in cells]):
                yield future.result()
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    for _ in range(count):
        idle.get().close()


class _Worker:
    """A process for one cell after another, started anew when it dies.

    A cell that is killed takes no other with it.
    """

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    def run(self, task: Callable[[Cell], Outcome], cell: Cell) -> Outcome:
        """The outcome of one cell."""
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(
                1, context, initializer=_follow, initargs=(os.getpid(),)
            )
        try:
            return self._pool.submit(task, cell).result()
        except BrokenProcessPool:
            self.close()
            return Outcome(
                cell,
                "crashed",
                "its process died (out of memory, or killed); run the same command again to resume",
                0.0,
            )

    def close(self) -> None:
        """End the process; the next cell starts another."""
        if self._pool is not None:
            self._pool.shutdown()
        self._pool = None


def _follow(parent: int) -> None:
    """End this process when its parent is gone, which it would not notice by itself.

    A killed run leaves none behind.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def work(
    cell: Cell,
    root: Path,
    command: str,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    wait: bool = True,
    failed_since: float = float("inf"),
) -> Outcome:
    """Run one cell in this process unless its record is there, and write the record.

    Args:
        cell: what to run.
        root: the tree of records.
        command: the command line, for the record.
        checkpoint_seconds: time between two checkpoints.
        wait: for another process that runs this very cell, instead of saying that it is busy.
        failed_since: a failure recorded at this time or later, seconds since the epoch, is not
            tried again.
    """
    started = time.perf_counter()
    try:
        path = cell.path(root)
        state = root / CHECKPOINTS / "~".join(path.relative_to(root).with_suffix("").parts)
        state.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(state.with_name(f"{state.name}.lock"), timeout=-1 if wait else 0) as lock:
            status, detail = _work(cell, root, command, state, checkpoint_seconds, failed_since)
            Path(lock.lock_file).unlink(
                missing_ok=True
            )  # the record is there: whoever comes next has no need of the lock
    except Timeout:
        status, detail = "busy", "another process runs it"
    except UserError as error:
        status, detail = "crashed", str(error)
    except BaseException as error:
        let_through(error)
        status, detail = "crashed", located(error)
    return Outcome(cell, status, detail, 0.0 if status == "kept" else time.perf_counter() - started)


def _work(
    cell: Cell,
    root: Path,
    command: str,
    state: Path,
    checkpoint_seconds: float,
    failed_since: float,
) -> tuple[str, str]:
    """Status and detail of a cell that nobody else has in hand."""
    import torch

    from bench.data import load_corpus
    from bench.runner.execute import cell_key, run_cell
    from bench.training.checkpoint import Checkpoints

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    key, path = cell_key(cell, load_corpus(cell.data)), cell.path(root)
    checkpoints, progress = (
        Checkpoints(state, key, checkpoint_seconds),
        state.with_name(state.name + PROGRESS),
    )

    def clear() -> None:
        checkpoints.clear()
        progress.unlink(missing_ok=True)

    if path.exists():
        there = Record.read(path)
        if there.key == key and there.status != "failed":
            clear()  # what a run left that was killed right after it wrote the record
            return "kept", _loss(there)
        if there.key == key and path.stat().st_mtime >= failed_since:
            return there.status, there.reason
        _set_aside(path, root, there.key)
    for left in path.parent.glob(
        f".{path.name}.*"
    ):  # half a record of a run that was killed while it wrote
        left.unlink(missing_ok=True)
    record = run_cell(cell, command, checkpoints, progress)
    record.write(path)
    clear()
    return record.status, record.reason or _loss(record)


def _loss(record: Record) -> str:
    return record.reason if record.loss is None else f"{record.loss:.4f} nats a byte"


def _set_aside(path: Path, root: Path, key: str) -> None:
    target = root / SUPERSEDED / path.relative_to(root).parent / f"{path.stem}-{key[:12]}.json.old"
    target.parent.mkdir(parents=True, exist_ok=True)
    path.replace(target)
