"""Run one cell unless its record exists, and store the record. A lock keeps one writer per cell."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from filelock import Timeout

from bench.errors import UserError, let_through, located
from bench.files import file_lock, require_room, why
from bench.record import Record, read_record, refer, store_path, write_record
from bench.record.store import target_of
from bench.runner.cell_phase import PULSE, Pulse, Timing
from bench.runner.cells import Cell

if TYPE_CHECKING:
    from bench.backbone.decoder import Decoder
    from bench.runner.resolve import ResolvedCell

CHECKPOINTS = ".checkpoints"
CHECKPOINT_SECONDS = 20.0
TRAINED = ("ok", "off_budget")
"""Statuses of cells that came to their end."""
RECORD_ROOM = 2**20
"""Bytes that must be free before a cell is trained: more than a record takes."""


@dataclass(frozen=True)
class Job:
    """The common part of all cells of a run.

    Attributes:
        root: tree that gets a reference to each record, unless a cell has a tree of its own.
        store: tree whose store holds the records. A study's settings share the store of the whole.
        command: the command line, for the records.
        checkpoint_seconds: time between two checkpoints of a cell.
        beside: number of other workers in the run.
        failed_since: failures recorded at this time or later, in seconds since the epoch, are not
            retried.
        keep_weights: keep the trained weights in the store. A cell with a record and no weights is
            trained again, and its record stays.
    """

    root: Path
    store: Path
    command: str
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    beside: int = 0
    failed_since: float = float("inf")
    keep_weights: bool = False


@dataclass(frozen=True)
class CellResult:
    """The result of one cell.

    Attributes:
        cell: the cell.
        status: the record's status; or "kept" for an earlier record, "crashed" if there is no
            record, "busy" while another process runs the cell.
        detail: the loss, or the reason of a failure.
        seconds: wall-clock time.
        timing: seconds of its phases, to predict those of other cells; None if they tell nothing.
    """

    cell: Cell
    status: str
    detail: str
    seconds: float
    timing: Timing | None = None

    @property
    def bad(self) -> bool:
        """Return whether training or a rule broke, so that a run with this cell ends with 1."""
        return self.status in ("crashed", "failed", "diverged", "invalid")


def resume_cell(cell: Cell, job: Job, wait: bool = True) -> CellResult:
    """Run one cell in this process unless its record exists, and write the record.

    Args:
        cell: the cell.
        job: the run.
        wait: wait for another process that runs this cell, instead of returning "busy".
    """
    return _resume(cell, job, wait) if cell.suite.ranks == 1 else _share(cell, job, wait)


def _share(cell: Cell, job: Job, wait: bool) -> CellResult:
    """Run one cell on all ranks. Rank 0 alone looks for a record, and writes it."""
    from bench.ranks import from_first, world

    if world().size != cell.suite.ranks:
        said = f"{cell.suite.ranks} ranks share it, and there are {world().size}; use torchrun"
        return CellResult(cell, "crashed", said, 0.0)
    if not world().leads:
        if from_first(False):
            _follow(cell, job)
        return from_first(cast(CellResult, None))
    # Rank 0 tells the others to begin, once it has found no record.
    begun: list[bool] = []
    result = _resume(cell, job, wait, lambda: begun.append(from_first(True)))
    if not begun:
        from_first(False)  # the others wait for an answer, also if there is nothing to run
    return from_first(result)


def _follow(cell: Cell, job: Job) -> None:
    """Run a cell together with rank 0, which writes its record and its checkpoints."""
    from bench.runner.resolve import resolve
    from bench.runner.run_cell import run_cell
    from bench.training.checkpoint import Checkpoints

    _fix_numerics()
    resolved = resolve(cell)
    state = job.store / CHECKPOINTS / resolved.key
    checkpoints = Checkpoints(state, resolved.key, job.checkpoint_seconds)
    keep = _keeper(job, resolved.key)
    run_cell(resolved, job.command, job.store, checkpoints, keep=keep)


def _resume(
    cell: Cell, job: Job, wait: bool, begin: Callable[[], object] = lambda: None
) -> CellResult:
    """Run one cell; `begin` is called if there is no record, before the cell is run."""
    started, timing = time.perf_counter(), None
    try:
        status, detail, timing = _locked(cell, job, wait, begin)
    except Timeout:
        status, detail = "busy", "another process runs it"
    except UserError as error:
        status, detail = "crashed", str(error)
    except OSError as error:  # in the cell itself it makes a record; here it is in the way of one
        said = f"cannot keep a record in {str(job.store)!r} ({why(error)})"
        status, detail = "crashed", f"{said}; mend that and run the same command to resume"
    except BaseException as error:
        let_through(error)
        if cell.suite.ranks > 1:
            raise  # the other ranks wait for this one, so all of them must end
        status, detail = "crashed", located(error)
    # A kept record took no time now.
    seconds = 0.0 if status == "kept" else time.perf_counter() - started
    return CellResult(cell, status, detail, seconds, timing)


def _fix_numerics() -> None:
    """Use one thread and deterministic kernels: equal cells give equal bits on any machine."""
    import torch

    from bench.runner.memory import keep_freed_memory
    from bench.runner.provenance import THREADS

    torch.set_num_threads(THREADS)
    keep_freed_memory()
    torch.use_deterministic_algorithms(True, warn_only=True)


def _locked(
    cell: Cell, job: Job, wait: bool, begin: Callable[[], object]
) -> tuple[str, str, Timing | None]:
    """Return status, detail and timing of a cell, while its lock keeps other processes away."""
    from bench.runner.resolve import resolve

    _fix_numerics()
    resolved = resolve(cell)
    place, kept = resolved.place(cell.tree or job.root), store_path(job.store, resolved.key)
    state = job.store / CHECKPOINTS / resolved.key
    state.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(f"{state}.lock", timeout=-1 if wait else 0) as lock:
        record, status, timing = _record(resolved, job, kept, state, begin)
        # The tree refers to the record by its place; the store keeps it by its key.
        displaced = _displaced(place, kept)
        refer(place, kept)
        # The record exists now, so the next process needs no lock.
        Path(lock.lock_file).unlink(missing_ok=True)
    return status, f"{record.reason or _loss(record)}{displaced}", timing


def _record(
    resolved: "ResolvedCell", job: Job, kept: Path, state: Path, begin: Callable[[], object]
) -> tuple[Record, str, Timing | None]:
    """Return the record of a cell, from the store or run now, with its status and timing."""
    from bench.runner.run_cell import run_cell
    from bench.training.checkpoint import Checkpoints

    checkpoints = Checkpoints(state, resolved.key, job.checkpoint_seconds)
    beats = state.with_name(state.name + PULSE)

    def clear() -> None:
        checkpoints.clear()
        beats.unlink(missing_ok=True)

    there = read_record(kept) if kept.exists() else None
    if there is not None and there.status == "failed":
        # Another process of this run, or of a later one, has tried already.
        if kept.stat().st_mtime >= job.failed_since:
            return there, there.status, None
    elif there is not None and not _lacks_weights(there, job):
        # A run that was killed right after it wrote the record left its checkpoints.
        clear()
        return there, "kept", None
    # A run that was killed while it wrote left half a record.
    for left in kept.parent.glob(f".{kept.stem}.*"):
        left.unlink(missing_ok=True)
    require_room(kept.parent, RECORD_ROOM)  # better known before the training than after it
    pulse = Pulse(resolved.cell, beats)
    keep = _keeper(job, resolved.key)
    begin()
    record = run_cell(resolved, job.command, job.store, checkpoints, pulse, job.beside, keep)
    # A run that broke off tells nothing about the others.
    timing = pulse.timing() if record.status in TRAINED else None
    if there is not None and there.status in TRAINED:
        # It was trained again for its weights alone.
        clear()
        return there, "kept", timing
    write_record(record, kept)
    clear()
    return record, record.status, timing


def _keeper(job: Job, key: str) -> Callable[["Decoder"], None]:
    """Return a function that keeps the weights of a cell, if the run asks for them."""
    from bench.runner.weights import keep_weights

    def keep(decoder: "Decoder") -> None:
        if job.keep_weights:
            keep_weights(decoder, job.store, key)

    return keep


def _lacks_weights(record: Record, job: Job) -> bool:
    """Return whether a cell must be trained again for its weights."""
    from bench.runner.weights import weights_path

    # Only a cell that came to its end has weights to keep.
    wanted = job.keep_weights and record.status in TRAINED
    return wanted and not weights_path(job.store, record.key).is_dir()


def _displaced(place: Path, kept: Path) -> str:
    """Return a note if the cell had a record made under other conditions, else an empty text."""
    before = target_of(place)
    if before is None or before.resolve() == kept.resolve():
        return ""
    return f" (in place of {before.name}, made under other conditions and kept in the store)"


def _loss(record: Record) -> str:
    return record.reason if record.loss is None else f"{record.loss:.4f} nats a byte"
