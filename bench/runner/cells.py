"""What a cell is, its content key, and how a list of cells follows from a suite."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.config.base import hash_of
from bench.config.data import DataConfig, Route
from bench.config.suite import ROW_NAME, RowConfig, SuiteConfig
from bench.errors import UserError, unknown
from bench.model.equip import check_loss_names
from bench.record import RULES_VERSION, CellId, Role, record_path
from bench.routing.contract import Paths, Site
from bench.routing.registry import Entry, find, load_all, load_file

UNRANKED: tuple[Role, ...] = ("bracket", "informed")
SIDE_INFORMATION = frozenset({"tags", "truth"})
"""Needs that no router of a text without labels could have met.

A row with one is `informed`, whatever its suite calls it.
"""
PROVIDED = frozenset({"tags", "token_loss", "utility", "truth", "attention"})
"""What the `joint` regime can give a router beyond the default."""

PRETRAINED = frozenset({"cheap", "full", "skip", "block"})
"""Paths for which a frozen backbone has weights, or which need none."""

NOT_NUMERICS = (
    "purpose",
    "seeds",
    "rows",
    "comparison",
    "sensitivity",
    "thresholds",
    "budget",
    "match",
    "name",
)
"""Fields of a suite that change nothing inside a cell, or are part of the cell itself."""


@dataclass(frozen=True)
class Cell:
    """One experiment.

    Attributes:
        suite: everything but the router.
        row: the router and its options.
        seed: of backbone, data order and router.
        plugin_files: plugin files to load before looking the router up.
    """

    suite: SuiteConfig
    row: RowConfig
    seed: int
    plugin_files: tuple[Path, ...] = ()

    @property
    def entry(self) -> Entry:
        """The registered router."""
        for file in self.plugin_files:
            load_file(file)
        return find(self.row.router)

    @property
    def outside(self) -> bool:
        """Whether a plugin's code runs in it."""
        return self.entry.brings_from_outside(self.row.options)

    @property
    def match(self) -> str:
        """Brackets are held to the tokens of a router at the budget.

        The rest to the suite's match.
        """
        return "tokens" if self.row.role == "bracket" else self.suite.match

    @property
    def data(self) -> DataConfig:
        """What it is trained and judged on."""
        return self.suite.data.at(self.seed)

    def identity(self) -> CellId:
        """What the record says about which cell it is."""
        entry = self.entry
        paths = entry.make(self.row.options).paths
        return CellId(
            suite=self.suite.name,
            row=self.row.name,
            router=self.row.router,
            options=self.row.options,
            family=entry.family,
            paper=entry.paper,
            role=self.row.role,
            control=self._control(paths),
            site=paths.site.value,
            seed=self.seed,
            match=self.suite.match,
            budget=self.suite.budget,
        )

    def _control(self, paths: Paths) -> str | None:
        if self.row.role in ("bracket", "control"):
            return None
        if self.row.control:
            return self.row.control
        name = (
            "random@block"
            if paths.site is Site.BLOCK
            else "random@ffn"
            if paths.base
            else "random@experts"
        )
        return name if name in {row.name for row in self.suite.rows} else None

    def numerics(self) -> dict[str, Any]:
        """Everything in the configuration that can change a number in the record."""
        suite = {
            name: value
            for name, value in self.suite.canonical().items()
            if name not in NOT_NUMERICS
        }
        row = self.row.canonical()
        cell = {"budget": self.suite.budget, "match": self.match, "seed": self.seed}
        return {
            "suite": suite,
            "row": {k: v for k, v in row.items() if k not in ("name", "control")},
            "cell": cell,
        }

    def key(self, data_hash: str, machine: dict[str, Any]) -> str:
        """Content key: same key, same experiment.

        Args:
            data_hash: of the built corpus.
            machine: device class, threads, dtype and the versions that matter.
        """
        return hash_of([RULES_VERSION, self.numerics(), self.source_hash, data_hash, machine])

    @property
    def source_hash(self) -> str:
        """Hash of the source of the router, and of those that its options name."""
        return self.entry.source_hash(self.row.options)

    @property
    def config_hash(self) -> str:
        """Hash of what the cells of a board must share.

        Everything numeric but the row and the seed.
        """
        numerics = self.numerics()
        return hash_of([numerics["suite"], self.suite.budget, self.suite.match])

    def path(self, root: Path) -> Path:
        """Where its record belongs."""
        return record_path(root, self.identity())

    def __str__(self) -> str:
        return f"{self.row.name} seed {self.seed}"


def parse_rows(
    suite: SuiteConfig, routers: str, plugin_files: Sequence[Path] = ()
) -> list[RowConfig]:
    """Rows of a comma-separated list of names; "all" is the suite's roster.

    Raises:
        UserError: a name that is neither a row of the suite nor a registered router, or the weight
            of a loss that none of them has.
    """
    if routers == "all":
        chosen = list(suite.rows)
    else:
        names = [name.strip() for name in routers.split(",") if name.strip()]
        if odd := next((name for name in names if re.fullmatch(ROW_NAME, name) is None), None):
            raise UserError(
                f"--routers names {odd!r}: names hold letters, digits and the signs _ . @ + = -. See `python -m bench list`."
            )
        chosen = [suite.row(name) for name in names]
    if not chosen:
        raise UserError(f"--routers is {routers!r}: name at least one router, or 'all'.")
    known = load_all(list(plugin_files))
    for index, row in enumerate(chosen):
        if row.router not in known:
            raise unknown(
                "router",
                row.router,
                {*known, *(r.name for r in suite.rows)},
                "Give a plugin's file with --plugin FILE.py.",
            )
        router = known[row.router].make(row.options)
        if row.training is not None:
            check_loss_names(row.training.losses, [router])
        if router.needs & SIDE_INFORMATION and row.role not in UNRANKED:
            chosen[index] = row.model_copy(update={"role": "informed"})
    if weights := suite.train.router.losses:
        check_loss_names(
            weights,
            [
                known[row.router].make(row.options)
                for row in (*chosen, *suite.rows)
                if row.router in known
            ],
        )
    return chosen


def unmet_needs(
    row: RowConfig, num_domains: int, route: Route | None = None, regime: str = "joint"
) -> str:
    """Why the suite cannot run a row: something that its router needs is not there.

    Empty if it can.
    """
    router = find(row.router).make(row.options)
    needs = router.needs
    if regime == "controller" and (
        without := [name for name in router.paths.names if name not in PRETRAINED]
    ):
        return f"it chooses among {', '.join(without)}, of which the frozen backbone has none"
    if "tags" in needs and num_domains < 2:
        return "it needs domain tags, and the data has one domain"
    if "truth" in needs and route is None:
        return "it needs the right path of each token, and the data do not tell it; source: planted does"
    if "truth" in needs and (router.paths.base is not None) != (route == "depth"):
        return f"it chooses among {', '.join(router.paths.names)}, and the data tell right paths of the kind {route!r}"
    if "utility" in needs and router.paths.base is None:
        return "it needs utility, which is that of an upgrade, and its paths have no base"
    missing = sorted(needs - PROVIDED)
    return f"it needs {', '.join(missing)}, which the regime does not provide" if missing else ""


def _files_for(row: RowConfig, plugin_files: Sequence[Path]) -> tuple[Path, ...]:
    """Plugin files are loaded where a row may need one.

    What an import does to a process is no business of other rows.
    """
    entry = load_all().get(row.router)
    return (
        ()
        if entry is not None and not entry.outside and not entry.router.wraps
        else tuple(plugin_files)
    )


def plan_cells(
    suite: SuiteConfig,
    rows: Sequence[RowConfig],
    seeds: Sequence[int],
    plugin_files: Sequence[Path] = (),
) -> list[Cell]:
    """All cells, seed by seed, so that an interrupted run leaves whole seeds behind.

    Where backbones are pretrained, one cell of each seed comes first: workers then train backbones
    side by side, and do not wait for one.
    """
    wanted = [(row, _files_for(row, plugin_files)) for row in rows]
    cells = [Cell(suite, row, seed, files) for seed in seeds for row, files in wanted]
    return (
        sorted(cells, key=lambda cell: cell.row is not rows[0])
        if suite.regime == "controller"
        else cells
    )


def sensitivity_cells(
    suite: SuiteConfig, rows: Sequence[RowConfig], plugin_files: Sequence[Path] = ()
) -> list[Cell]:
    """One cell a row and learning-rate factor, named `row@lr<factor>`, on the suite's sensitivity
    seed.

    Factor 1 is included, to compare with. A twin has nothing of its own to tune, and is left out.
    """
    scales = sorted({1.0, *suite.sensitivity.lr_scales}) if suite.sensitivity.lr_scales else []
    variants = [
        row.model_copy(update={"name": f"{row.name}@lr{scale:g}", "lr_scale": row.lr_scale * scale})
        for row in rows
        if row.role != "twin"
        for scale in scales
    ]
    return plan_cells(suite, variants, [suite.sensitivity.seed], plugin_files)
