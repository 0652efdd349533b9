"""Define cells: one router at one seed, router seed, budget and match, as a suite asks for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bench.config.base import hash_of
from bench.config.data import DataConfig
from bench.config.roles import sensitivity_name
from bench.config.row import RouterTraining, RowConfig
from bench.config.suite import SuiteConfig


@dataclass(frozen=True)
class Cell:
    """One experiment as it is asked for. `bench.runner.resolve` looks up its parts.

    Attributes:
        suite: everything but the router.
        row: the router and its options, with one router seed.
        seed: of backbone, data order and router.
        plugin_files: plugin files to load before the router is looked up.
        outside: a plugin's code runs in it, so it gets a process of its own.
        replica: place of its router seed among those that the row has at each seed.
        tree: tree that gets the reference to its record; None for that of the run. A study has one
            for each setting.
    """

    suite: SuiteConfig
    row: RowConfig
    seed: int
    plugin_files: tuple[Path, ...] = ()
    outside: bool = False
    replica: int = 0
    tree: Path | None = None

    @property
    def match(self) -> str:
        """The quantity that rows share: tokens for brackets, the suite's match for other rows."""
        return "tokens" if self.row.role == "bracket" else self.suite.match

    @property
    def data(self) -> DataConfig:
        """The text for training and evaluation."""
        return self.suite.data.at(self.seed)

    @property
    def training(self) -> RouterTraining:
        """The training options of its router."""
        return self.row.training or self.suite.train.router

    @cached_property
    def digest(self) -> str:
        """A hash that differs between the cells of a run. It is no content key."""
        return hash_of([self.suite.canonical(), self.row.canonical(), self.seed, str(self.tree)])

    def __str__(self) -> str:
        further = f" router {self.row.router_seed}" if self.replica else ""
        within = f" in {self.tree.name}" if self.tree else ""
        return f"{self.row.name} seed {self.seed}{further}{within}"


def plan_cells(
    suite: SuiteConfig,
    rows: Sequence[RowConfig],
    seeds: Sequence[int],
    plugin_files: Sequence[Path] = (),
    outside: frozenset[str] = frozenset(),
) -> list[Cell]:
    """List all cells, seed by seed, so that an interrupted run leaves whole seeds behind.

    Args:
        suite: the suite of all cells.
        rows: the rows.
        seeds: the seeds.
        plugin_files: files of plugins, loaded only for rows that need one.
        outside: names of the rows that run a plugin's code.
    """
    cells: list[Cell] = []
    for seed in seeds:
        for row in rows:
            own = row.name in outside
            files = tuple(plugin_files) if own else ()
            cells += [
                Cell(suite, one, seed, files, own, replica)
                for replica, one in enumerate(row.replicas())
            ]
    if suite.regime != "controller":
        return cells
    # One cell of each seed comes first: then workers pretrain the backbones in parallel, and do
    # not wait for one of them.
    return sorted(cells, key=lambda cell: (cell.row.name, cell.replica) != (rows[0].name, 0))


def sensitivity_rows(suite: SuiteConfig, rows: Sequence[RowConfig]) -> list[RowConfig]:
    """Return a row for each row and learning-rate factor, named `row@lr<factor>`.

    Factor 1 is included for comparison. A twin has nothing of its own to tune, and is left out.
    """
    scales = sorted({1.0, *suite.sensitivity.lr_scales}) if suite.sensitivity.lr_scales else []
    return [
        row.model_copy(
            update={
                "name": sensitivity_name(row.name, scale),
                "lr_scale": row.lr_scale * scale,
            }
        )
        for row in rows
        if row.role != "twin"
        for scale in scales
    ]
