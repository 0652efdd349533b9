"""Run many cells on this machine: single-threaded processes side by side, resumable, one writer a record."""

import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UserError
from bench.record import Record
from bench.runner.cells import Cell

SUPERSEDED = ".superseded"


@dataclass(frozen=True)
class Outcome:
    """What came of one cell.

    Attributes:
        cell: the cell.
        status: the record's status, "kept" for a record that was already there, or "crashed" where there is none.
        detail: the loss, or what went wrong.
        seconds: wall-clock time.
    """

    cell: Cell
    status: str
    detail: str
    seconds: float


def run_cells(
    cells: Sequence[Cell], root: Path, command: str, workers: int, report: Callable[[Outcome], None] = lambda _: None
) -> list[Outcome]:
    """Run the cells that have no record yet; each worker writes its own.

    A record of the same content key is kept. One of another key, from other code or configuration, is moved to
    `.superseded` below `root`, never deleted.

    Args:
        cells: what to run, in order.
        root: the tree of records.
        command: the command line, for the records.
        workers: processes; 0 runs the cells in this one.
        report: called with each outcome as it comes.
    """
    outcomes: list[Outcome] = []

    def done(outcome: Outcome) -> None:
        outcomes.append(outcome)
        report(outcome)

    if workers == 0:
        for cell in cells:
            done(work(cell, root, command))
        return outcomes
    # Threads must be fixed before a worker imports torch, so by environment.
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=min(workers, len(cells) or 1), mp_context=context) as pool:
        futures: dict[Future[Outcome], Cell] = {pool.submit(work, cell, root, command): cell for cell in cells}
        try:
            for future in as_completed(futures):
                done(_outcome(future, futures[future]))
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return outcomes


def _outcome(future: "Future[Outcome]", cell: Cell) -> Outcome:
    try:
        return future.result()
    except BrokenProcessPool:
        return Outcome(cell, "crashed", "a worker process died (out of memory, or killed); run the same command again to resume", 0.0)


def work(cell: Cell, root: Path, command: str) -> Outcome:
    """Run one cell in this process unless its record is there, and write the record."""
    import torch

    from bench.data import load_corpus
    from bench.runner.execute import cell_key, run_cell

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    started = time.perf_counter()
    try:
        path = cell.path(root)
        if path.exists():
            key = cell_key(cell, load_corpus(cell.suite.data))
            there = Record.read(path)
            if there.key == key:
                return Outcome(cell, "kept", _loss(there), 0.0)
            _set_aside(path, root, there.key)
        record = run_cell(cell, command)
        record.write(path)
    except UserError as error:
        return Outcome(cell, "crashed", str(error), time.perf_counter() - started)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        detail = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
        return Outcome(cell, "crashed", " ".join(detail.split()), time.perf_counter() - started)
    return Outcome(cell, record.status, record.reason or _loss(record), time.perf_counter() - started)


def _loss(record: Record) -> str:
    return record.reason if record.loss is None else f"{record.loss:.4f} nats a byte"


def _set_aside(path: Path, root: Path, key: str) -> None:
    target = root / SUPERSEDED / path.relative_to(root).parent / f"{path.stem}-{key[:12]}.json.old"
    target.parent.mkdir(parents=True, exist_ok=True)
    path.replace(target)
