"""Predict how long the remaining cells of a run take, from the cells that it has finished."""

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from bench.config.base import hash_of
from bench.config.data import DataConfig
from bench.data import Corpus, load_corpus
from bench.errors import UserError
from bench.record import read_record, store_path
from bench.runner.cell_phase import PHASES, Beat, Phase, Timing
from bench.runner.cells import Cell
from bench.runner.frozen import training_budget
from bench.runner.resolve import decoder_of, resolve
from bench.runner.resume_cell import lacks_weights


@dataclass(frozen=True)
class Expected:
    """A cell before it runs.

    Attributes:
        digest: identification of the cell (`Cell.digest`).
        row: identification of its suite and row. Cells that share it take about the same time.
        flops: training FLOPs, as `bench plan` predicts them.
        pretrains: whether it comes first among the cells that share a frozen backbone.
    """

    digest: str
    row: str
    flops: float
    pretrains: bool = False


class Forecast:
    """Predict the time left of a run.

    The training of a cell takes its FLOPs times the measured seconds per FLOP. Its other phases
    take as long as they did before. Finished cells of the same suite and row are the measure; where
    there are none, all finished cells. The remaining cells go in order to the worker that is free
    first.

    Args:
        cells: the cells without a record, in order.
        workers: number of cells that run at once; 0 counts as one.
    """

    def __init__(self, cells: Sequence[Expected], workers: int) -> None:
        self.workers = max(1, workers)
        self.waiting = {cell.digest: cell for cell in cells}
        self.measured: list[tuple[Expected, Timing]] = []

    def finish(self, digest: str, timing: Timing | None) -> None:
        """Take a cell out of the forecast, and learn from its seconds."""
        cell = self.waiting.pop(digest, None)
        if cell is not None and timing is not None:
            self.measured.append((cell, timing))

    def seconds_left(self, running: Mapping[str, Beat], now: float) -> float | None:
        """Return the seconds until the last cell ends; None before the first cell has finished.

        Args:
            running: digest of a cell -> its latest beat.
            now: seconds since the epoch.
        """
        if not self.measured:
            return None
        begun = [
            _rest(self.timing_of(cell), running[digest], now)
            for digest, cell in self.waiting.items()
            if digest in running
        ]
        # A worker is free when its running cell ends, and at once if it has none.
        free = [*begun, *[0.0] * (self.workers - len(begun))]
        heapq.heapify(free)
        for digest, cell in self.waiting.items():
            if digest not in running:
                heapq.heapreplace(free, free[0] + sum(self.timing_of(cell).values()))
        return max(free)

    def timing_of(self, cell: Expected) -> Timing:
        """Return the predicted seconds of a whole cell, phase by phase."""
        same = [one for one in self.measured if one[0].row == cell.row] or self.measured
        found: dict[Phase, float] = {
            phase: fmean(timing[phase] for _, timing in same) for phase in PHASES
        }
        # Cells of other budgets train on other FLOPs.
        found["training"] = cell.flops * fmean(
            timing["training"] / one.flops for one, timing in same
        )
        # The others only wait for the backbone, while it is trained.
        trained = [timing["backbone"] for one, timing in self.measured if one.pretrains]
        found["backbone"] = fmean(trained) if trained and cell.pretrains else 0.0
        return found


def _rest(timing: Timing, beat: Beat, now: float) -> float:
    """Return the predicted seconds to the end of a running cell."""
    later = PHASES[PHASES.index(beat.phase) + 1 :]
    # Training and pretraining know their share; of other phases only the time is known.
    done = timing[beat.phase] * beat.share if beat.share else now - beat.since
    return max(0.0, timing[beat.phase] - done) + sum(timing[phase] for phase in later)


def expect(
    cells: Sequence[Cell], store: Path, keep_weights: bool = False
) -> tuple[list[Expected], frozenset[str]]:
    """Return the cells that a run must train, and the digests of the others.

    Cells with a plugin's code count as without a record: only a process of their own may look them
    up.

    Args:
        cells: the cells of the run, in order.
        store: tree whose store holds the records.
        keep_weights: whether the run keeps weights. A cell with a record and no weights is trained.
    """
    read = _reader()
    budgets: dict[str, float] = {}
    expected: list[Expected] = []
    seeds: set[tuple[str, int]] = set()
    # Cells of several texts may alternate, and each text is read once.
    by_text = sorted(cells, key=lambda cell: hash_of(cell.data.canonical()))
    kept = frozenset(cell.digest for cell in by_text if _is_kept(cell, store, keep_weights, read))
    for cell in cells:
        if cell.digest in kept:
            continue
        suite = hash_of(cell.suite.canonical())
        if suite not in budgets:
            vocab_size = read(cell.data).vocab_size
            budgets[suite] = training_budget(cell.suite, decoder_of(cell.suite, vocab_size))
        # The first cell of a seed may have to train a frozen backbone.
        first = (suite, cell.seed) not in seeds
        seeds.add((suite, cell.seed))
        row = hash_of([suite, cell.row.name])
        expected.append(Expected(cell.digest, row, budgets[suite], first))
    return expected, kept


def _is_kept(
    cell: Cell, store: Path, keep_weights: bool, read: Callable[[DataConfig], Corpus]
) -> bool:
    if cell.outside:
        return False
    try:
        path = store_path(store, resolve(cell, read(cell.data)).key)
        if not path.exists():
            return False
        record = read_record(path)
        # A cell that failed is tried again.
        return record.status != "failed" and not (keep_weights and lacks_weights(record, store))
    except UserError:  # the cell itself gives the reason
        return False


def _reader() -> Callable[[DataConfig], Corpus]:
    """Return a function that loads a corpus, unless it is the one loaded last."""
    last: list[tuple[DataConfig, Corpus]] = []

    def read(config: DataConfig) -> Corpus:
        if not last or last[0][0] != config:
            last[:] = [(config, load_corpus(config))]
        return last[0][1]

    return read
