"""Run one cell unless its record is there, and keep the record: one writer a cell."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import Timeout

from bench.errors import UserError, let_through, located
from bench.files import file_lock, require_room, why
from bench.record import Record, read_record, record_path, refer, store_path, write_record
from bench.record.store import target_of
from bench.runner.cells import Cell

if TYPE_CHECKING:
    from bench.runner.resolve import ResolvedCell

CHECKPOINTS = ".checkpoints"
PROGRESS = ".progress"
CHECKPOINT_SECONDS = 20.0
RECORD_ROOM = 2**20
"""Bytes that must be free before a cell is trained: more than a record takes."""


@dataclass(frozen=True)
class Job:
    """What the cells of one run have in common.

    Attributes:
        root: tree that gets a reference to each record.
        store: tree whose store holds the records; a study's settings share that of the whole.
        command: the command line, for the records.
        checkpoint_seconds: time between two checkpoints of a cell.
        beside: other workers of the run.
        failed_since: a failure recorded at this time or later, seconds since the epoch, is not
            tried again.
    """

    root: Path
    store: Path
    command: str
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    beside: int = 0
    failed_since: float = float("inf")


@dataclass(frozen=True)
class CellResult:
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


def work(cell: Cell, job: Job, wait: bool = True) -> CellResult:
    """Run one cell in this process unless its record is there, and write the record.

    Args:
        cell: what to run.
        job: where and how.
        wait: for another process that runs this very cell, instead of saying that it is busy.
    """
    started = time.perf_counter()
    try:
        status, detail = _locked(cell, job, wait)
    except Timeout:
        status, detail = "busy", "another process runs it"
    except UserError as error:
        status, detail = "crashed", str(error)
    except OSError as error:  # in the cell itself it makes a record; here it is in the way of one
        said = f"cannot keep a record in {str(job.store)!r} ({why(error)})"
        status, detail = "crashed", f"{said}; mend that and run the same command to resume"
    except BaseException as error:
        let_through(error)
        status, detail = "crashed", located(error)
    seconds = 0.0 if status == "kept" else time.perf_counter() - started
    return CellResult(cell, status, detail, seconds)


def _locked(cell: Cell, job: Job, wait: bool) -> tuple[str, str]:
    """Status and detail of a cell, while no other process has it in hand."""
    import torch

    from bench.runner.resolve import resolve

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    resolved = resolve(cell)
    place, kept = record_path(job.root, resolved.cell_id), store_path(job.store, resolved.key)
    state = job.store / CHECKPOINTS / resolved.key
    state.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(f"{state}.lock", timeout=-1 if wait else 0) as lock:
        record, status = _record(resolved, job, kept, state)
        displaced = _displaced(place, kept)
        refer(place, kept)
        # the record is there: the next process has no need of the lock
        Path(lock.lock_file).unlink(missing_ok=True)
    return status, f"{record.reason or _loss(record)}{displaced}"


def _record(resolved: "ResolvedCell", job: Job, kept: Path, state: Path) -> tuple[Record, str]:
    """Return the record of a cell, from the store or run now, and a status."""
    from bench.runner.run_cell import run_cell
    from bench.training.checkpoint import Checkpoints

    checkpoints = Checkpoints(state, resolved.key, job.checkpoint_seconds)
    progress = state.with_name(state.name + PROGRESS)

    def clear() -> None:
        checkpoints.clear()
        progress.unlink(missing_ok=True)

    if kept.exists():
        there = read_record(kept)
        if there.status != "failed":
            clear()  # left by a run that was killed right after it wrote the record
            return there, "kept"
        if kept.stat().st_mtime >= job.failed_since:
            return there, there.status
    for left in kept.parent.glob(f".{kept.stem}.*"):  # half a record of a run that was killed
        left.unlink(missing_ok=True)
    require_room(kept.parent, RECORD_ROOM)  # better known before the training than after it
    record = run_cell(resolved, job.command, job.store, checkpoints, progress, job.beside)
    write_record(record, kept)
    clear()
    return record, record.status


def _displaced(place: Path, kept: Path) -> str:
    """Return a word on a record made under other conditions that stood for the same cell."""
    before = target_of(place)
    if before is None or before.resolve() == kept.resolve():
        return ""
    return f" (in place of {before.name}, made under other conditions and kept in the store)"


def _loss(record: Record) -> str:
    return record.reason if record.loss is None else f"{record.loss:.4f} nats a byte"
