"""Predict time, memory and disk of a grid of cells, and begin with its longest cells."""

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf

from bench.config.base import hash_of
from bench.config.data import DataConfig
from bench.data import Corpus, declared_corpus, load_corpus
from bench.errors import UserError
from bench.executors.isolation import in_fresh_process
from bench.planning.rates import Rates
from bench.planning.work import Work, work_of
from bench.runner.cells import Cell

WEIGHT_BYTES = 4
"""Bytes of a parameter of kept weights, or of a frozen backbone in the cache."""


@dataclass(frozen=True)
class Grid:
    """The cells that a run must train, with their work.

    Attributes:
        cells: the cells, in the order of the run.
        works: digest of a cell -> its work; cells whose work is unknown are left out.
        rates: of the device.
        workers: number of cells at once.
        keep_weights: whether the run keeps the weights of each cell.
    """

    cells: Sequence[Cell]
    works: Mapping[str, Work]
    rates: Rates
    workers: int
    keep_weights: bool = False

    @property
    def flops(self) -> float:
        """Return the training FLOPs of all cells."""
        return sum(work.flops for work in self.works.values())

    @cached_property
    def backbones(self) -> dict[tuple[str, int], Work]:
        """Return suite and seed of each frozen backbone -> the work of one of its cells."""
        found = {
            (hash_of(cell.suite.canonical()), cell.seed): self.works[cell.digest]
            for cell in self.cells
            if cell.digest in self.works
        }
        return {place: work for place, work in found.items() if work.pretraining}

    @property
    def pretraining(self) -> float:
        """Return the FLOPs of all frozen backbones."""
        return sum(work.pretraining for work in self.backbones.values())

    @cached_property
    def seconds(self) -> dict[str, float]:
        """Return digest -> seconds of a cell, without its frozen backbone."""
        return {digest: self.rates.seconds(work) for digest, work in self.works.items()}

    @property
    def hours(self) -> float:
        """Return the hours until the last cell ends, if no worker fails or waits for a queue."""
        # All cells of a seed need its backbone, so the backbones come first.
        first = [
            self.rates.pretraining_seconds(work.pretraining) for work in self.backbones.values()
        ]
        ordered = [self.seconds.get(cell.digest, 0.0) for cell in self.cells]
        return (makespan(first, self.workers) + makespan(ordered, self.workers)) / 3600

    @property
    def longest(self) -> float:
        """Return the hours of the longest cell."""
        return max(self.seconds.values(), default=0.0) / 3600

    @property
    def memory(self) -> float:
        """Return the peak bytes of the largest cell."""
        return max(map(self.rates.memory, self.works.values()), default=0.0)

    @property
    def disk(self) -> float:
        """Return the most bytes on disk: records, running checkpoints, backbones, kept weights."""
        running = sorted((work.checkpoints for work in self.works.values()), reverse=True)
        kept = list(self.works.values()) if self.keep_weights else []
        weights = sum(work.parameters for work in [*self.backbones.values(), *kept]) * WEIGHT_BYTES
        records = len(self.cells) * self.rates.stored()
        return records + sum(running[: max(1, self.workers)]) + weights


def makespan(seconds: Sequence[float], workers: int) -> float:
    """Return the seconds until the last cell ends, if each goes to the worker that is free first.

    Args:
        seconds: of each cell, in order.
        workers: number of cells at once; 0 counts as one.
    """
    free = [0.0] * max(1, workers)
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
    return max(free)


def works_of(cells: Sequence[Cell], look_up_plugins: bool = False) -> dict[str, Work]:
    """Return digest -> work of cells. Each row is sized once, since no seed changes its size.

    Rows that cannot be sized are left out; their cells give the reason when they run.

    Args:
        cells: the cells.
        look_up_plugins: also size rows with a plugin's code, each in a process of its own.
    """
    found: dict[str, Work | None] = {}

    def size(cell: Cell) -> Work | None:
        if cell.outside and not look_up_plugins:
            return None
        try:
            return in_fresh_process(_work, cell) if cell.outside else _work(cell)
        except UserError:
            return None

    works: dict[str, Work] = {}
    for cell in cells:
        # The key of a row without its seed.
        row = hash_of([cell.suite.canonical(), cell.row.name])
        if row not in found:
            found[row] = size(cell)
        if (work := found[row]) is not None:
            works[cell.digest] = work
    return works


def _work(cell: Cell) -> Work:
    return work_of(cell, text_of(cell.data))


def text_of(config: DataConfig, said: Callable[[str], None] = lambda _: None) -> Corpus:
    """Return the text to plan with. A plan downloads no text: sizes alone replace it.

    Args:
        config: the data.
        said: called with a line before a text is read that is not in the cache.
    """
    return declared_corpus(config) if config.source == "hub" else load_corpus(config, said=said)


def longest_first(cells: Sequence[Cell], seconds: Mapping[str, float], workers: int) -> list[Cell]:
    """Return the cells in the order in which they should begin.

    The longest come first, so that no long one begins last. If the workers do not hold a whole
    seed, this is done seed by seed, so that an interrupted run leaves whole seeds behind. Cells
    that train a frozen backbone come before all others.

    Args:
        cells: the cells, seed by seed.
        seconds: digest -> predicted seconds. A cell without any may be long, so it comes first.
        workers: number of cells at once.
    """
    seeds: dict[tuple[str, int], int] = {}
    leading: set[str] = set()
    groups: dict[str, int] = {}
    for cell in cells:
        place = (hash_of(cell.suite.canonical()), cell.seed)
        # The first cell of a seed trains the backbone that the others of the seed wait for.
        if place not in seeds and cell.suite.regime == "controller":
            leading.add(cell.digest)
        groups[cell.digest] = seeds.setdefault(place, len(seeds))
    # Workers for all rows of a seed leave whole seeds behind in any order.
    wide = workers * len(seeds) >= len(cells)

    def rank(cell: Cell) -> tuple[bool, int, float]:
        seed = 0 if wide else groups[cell.digest]
        return cell.digest not in leading, seed, -seconds.get(cell.digest, inf)

    return sorted(cells, key=rank)
