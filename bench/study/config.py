"""Define the declaration of a study: claims with their sources, rows, comparisons, sizes.

Imports no torch, so that a study's page can be rendered wherever its records are.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from bench.config.base import Part
from bench.config.row import RowConfig
from bench.config.suite import MOST_SEEDS
from bench.errors import UserError, unknown
from bench.stats.claims import Expectation
from bench.study.measures import Measure, find_measure

SizeName = Literal["small", "full"]


class Setting(Part):
    """The conditions of a group of cells: a suite with some replaced fields."""

    suite: str = Field(min_length=1, description="name of a suite or a YAML file")
    set: dict[str, Any] = Field(
        default_factory=dict, description="dotted field of the suite -> value"
    )
    series: str = Field(
        default="", description="name of the settings that `across` joins to one line a row"
    )


class StudyRow(RowConfig):
    """A row of the grid."""

    about: str = Field(default="", description="the row in a few words")
    settings: tuple[str, ...] = Field(default=(), description="settings to run it in; all if empty")
    figures: dict[str, str] = Field(
        default_factory=dict, description="measure -> the source's own figure for this row"
    )
    series: str = Field(default="", description="line of the study's curves with this point")
    at: float | None = Field(default=None, description="place on that line")

    def plain(self) -> RowConfig:
        """Return the row as a suite lists it."""
        # Only fields that are set, so that the row is equal to the one in a record.
        return RowConfig.model_validate(
            self.model_dump(
                exclude={"about", "settings", "figures", "series", "at"}, exclude_unset=True
            )
        )


class StudyComparison(Part):
    """A prediction of the difference between `row` and `control` in one measure, paired by seed.

    It is made in each of `settings`. A measure that is compared as a ratio uses differences of
    logarithms; its `least` and `margin` are factors above 1.
    """

    row: str
    control: str
    measure: str = "loss"
    expect: Expectation = Field(description="claimed direction of row - control")
    least: float | None = Field(
        default=None, gt=0, description="smallest size of the difference that the claim states"
    )
    margin: float | None = Field(
        default=None,
        gt=0,
        description="smaller differences do not matter; for losses the study's margin by default",
    )
    settings: tuple[str, ...] = Field(
        default=(), description="settings to compare in; all that hold both rows if empty"
    )
    best: bool = Field(
        default=False,
        description="make one comparison, of the lowest value of each row over the settings; a "
        "seed has its own lowest",
    )
    figure: str = Field(default="", description="the source's figure for this comparison")

    @model_validator(mode="after")
    def _consistent(self) -> "StudyComparison":
        if self.row == self.control:
            raise ValueError(f"compares {self.row!r} with itself")
        if self.least is not None and self.expect not in ("lower", "higher"):
            raise ValueError(f"an expectation of {self.expect!r} has no `least`; it has a margin")
        try:
            measure = find_measure(self.measure)
        except UserError as error:
            raise ValueError(str(error)) from None
        # The logarithm of a factor must be a positive width.
        for name, value in (("margin", self.margin), ("least", self.least)):
            if measure.ratio and value is not None and value <= 1:
                raise ValueError(
                    f"{self.measure} is compared as a ratio, so its {name} is a factor above 1"
                )
        # The study's margin is in nats, so it fits losses alone.
        if self.margin is None and not measure.is_loss:
            raise ValueError(f"{self.measure} needs a margin of its own")
        if self.best and not measure.is_loss:
            raise ValueError(f"{self.measure} is no loss, so its lowest value is not its best")
        return self

    @property
    def of(self) -> Measure:
        """The measure of this comparison."""
        return find_measure(self.measure)


class Claim(Part):
    """A statement that the study tests.

    It is reproduced if all its comparisons are confirmed, and not reproduced if one is refuted.
    """

    text: str = Field(min_length=1)
    source: str = Field(
        min_length=1, description="paper and section, or `this bench` for a statement of our own"
    )
    figure: str = Field(default="", description="the source's own figure")
    comparisons: tuple[StudyComparison, ...] = Field(min_length=1)


class Size(Part):
    """One size of the study. A smaller size cuts the grid or the seeds, never the cells."""

    seeds: int = Field(ge=2, le=MOST_SEEDS)
    first_seed: int = Field(
        default=0,
        ge=0,
        description="first seed, above all seeds that were looked at while the study was planned",
    )
    core_minutes: float = Field(gt=0, description="predicted cost, pretraining included")
    machine: str = Field(default="one CPU core a cell", description="machine of the prediction")
    rows: tuple[str, ...] = Field(default=(), description="only these rows; all if empty")
    settings: tuple[str, ...] = Field(default=(), description="only these settings; all if empty")
    suites: dict[str, str] = Field(
        default_factory=dict, description="setting -> suite that replaces its own at this size"
    )
    set: dict[str, Any] = Field(
        default_factory=dict, description="dotted field -> value, over every setting's own"
    )

    @property
    def numbers(self) -> range:
        """The seeds of this size."""
        return range(self.first_seed, self.first_seed + self.seeds)


class StudyConfig(Part):
    """Top-level fields of a study."""

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    title: str
    purpose: str
    scope: str = Field(description="conditions that the verdicts hold for")
    margin: float = Field(
        default=0.01, gt=0, description="nats; smaller differences of losses do not matter"
    )
    alpha: float = Field(
        default=0.05,
        gt=0,
        lt=0.5,
        description="probability of any false verdict in the whole study at one size",
    )
    measures: tuple[str, ...] = Field(
        default=("best_loss", "average_loss"), description="more columns after the headline loss"
    )
    axis: str = Field(default="", description="name of the axis that `at` of a row lies on")
    curves: tuple[str, ...] = Field(default=(), description="measures drawn against `at`")
    across: tuple[str, ...] = Field(
        default=(),
        description="measures that the loss is drawn against, a line for each row and `series` "
        "of settings; settings then have no figures of their own",
    )
    settings: dict[str, Setting] = Field(min_length=1)
    rows: tuple[StudyRow, ...] = Field(min_length=2)
    claims: tuple[Claim, ...] = Field(min_length=1)
    sizes: dict[SizeName, Size]

    @model_validator(mode="after")
    def _consistent(self) -> "StudyConfig":
        names = [row.name for row in self.rows]
        if len(set(names)) < len(names):
            raise ValueError(
                f"rows name {sorted({n for n in names if names.count(n) > 1})} twice; row names "
                "must be unique"
            )
        # Validators must raise ValueError, and the checks of names raise UserError.
        try:
            self._check_rows()
            self._check_references(names)
        except UserError as error:
            raise ValueError(str(error)) from None
        if "small" not in self.sizes:
            raise ValueError("sizes lacks 'small', which is the committed size")
        return self

    def _check_rows(self) -> None:
        for measure in (*self.measures, *self.curves, *self.across):
            find_measure(measure)
        for row in self.rows:
            _known("measure", row.figures, (*self.measures, "loss"))
            if bool(row.series) != (row.at is not None):
                raise UserError(
                    f"{row.name!r} has `series` or `at` without the other; a point of a curve "
                    "has both"
                )

    def _check_references(self, names: Sequence[str]) -> None:
        """Refuse a name of another part of the study that does not exist there."""
        for row in self.rows:
            _known("setting", row.settings, self.settings)
        for size in self.sizes.values():
            _known("row", size.rows, names)
            _known("setting", (*size.settings, *size.suites), self.settings)
        for comparison in self.comparisons:
            _known("row", (comparison.row, comparison.control), names)
            _known("setting", comparison.settings, self.settings)
            if not self.places(comparison):
                raise UserError(
                    f"{comparison.row!r} and {comparison.control!r} are compared, but no "
                    "setting holds both"
                )

    @property
    def comparisons(self) -> tuple[StudyComparison, ...]:
        """All comparisons of all claims."""
        return tuple(comparison for claim in self.claims for comparison in claim.comparisons)

    def size(self, name: str) -> Size:
        """Return the size of a name.

        Raises:
            UserError: the study has no such size.
        """
        for known, size in self.sizes.items():
            if known == name:
                return size
        raise unknown("size", name, self.sizes, f"Sizes are those of the study {self.name!r}.")

    def grid(self, size: Size) -> dict[str, tuple[StudyRow, ...]]:
        """Return setting -> its rows at one size."""
        rows = [row for row in self.rows if not size.rows or row.name in size.rows]
        return {
            setting: tuple(row for row in rows if not row.settings or setting in row.settings)
            for setting in self.settings
            if not size.settings or setting in size.settings
        }

    def num_cells(self, size: Size) -> int:
        """Return the number of cells of one size."""
        replicas = [row.replicas() for rows in self.grid(size).values() for row in rows]
        return size.seeds * sum(map(len, replicas))

    def places(
        self, comparison: StudyComparison, size: Size | None = None
    ) -> list[tuple[str, ...]]:
        """Return the settings of each prediction of a comparison, at one size or at any.

        A prediction has one setting, or all of them if it compares the best.
        """
        everything = {
            setting: [row for row in self.rows if not row.settings or setting in row.settings]
            for setting in self.settings
        }
        grid = everything if size is None else self.grid(size)
        # A comparison needs both of its rows in the setting.
        names = {setting: {row.name for row in rows} for setting, rows in grid.items()}
        found = tuple(
            s
            for s in comparison.settings or self.settings
            if {comparison.row, comparison.control} <= names.get(s, set())
        )
        if comparison.best:
            return [found] if found else []
        return [(setting,) for setting in found]

    def margin_of(self, comparison: StudyComparison) -> float:
        """Return the margin of a comparison: its own, or the study's."""
        return comparison.margin if comparison.margin is not None else self.margin


def _known(kind: str, names: Iterable[str], allowed: Iterable[str]) -> None:
    for name in names:
        if name not in allowed:
            raise unknown(kind, name, allowed)
