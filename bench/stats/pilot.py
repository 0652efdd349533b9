"""Plan from a pilot: the seeds that each comparison still needs, and their cost."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

from bench.errors import UserError
from bench.stats.align import Losses, align
from bench.stats.comparisons import Comparison, Family, Plan
from bench.stats.design import POWER, rejection_power
from bench.stats.families import FamilyTests, compare_board, pair_indices
from bench.stats.paired import Floats

MOST_SEEDS_NEEDED = 512
"""Largest number of seeds to consider. A difference that needs more is out of reach."""


@dataclass(frozen=True)
class CellCost:
    """Cost of one seed of one row: training FLOPs and hours of one worker."""

    flops: float
    hours: float


@dataclass(frozen=True)
class Need:
    """Seeds that one comparison needs.

    Attributes:
        row: first row.
        control: second row.
        family: family of the declaration.
        n: common seeds of the pilot.
        sd: moderated SD of the difference, nats per byte; NaN if unknown.
        detectable: smallest difference that the pilot's seeds find with the wanted power, nats per
            byte.
        effect: difference to find, nats per byte.
        seeds: number of seeds, in all, to find `effect`; None if unknown or above
            `MOST_SEEDS_NEEDED`.
        seeds_upper: the same with the upper 80 % bound of the SD, because a pilot of few seeds may
            have been lucky (Browne 1995, Statistics in Medicine 14).
        flops: training FLOPs of the missing seeds, both rows; None with `seeds`.
        hours: worker hours of the missing seeds, both rows; None with `seeds`.
    """

    row: str
    control: str
    family: Family
    n: int
    sd: float
    detectable: float
    effect: float
    seeds: int | None
    seeds_upper: int | None
    flops: float | None
    hours: float | None

    @property
    def missing(self) -> int | None:
        """Number of seeds that are still to be run for this comparison."""
        return None if self.seeds is None else max(self.seeds - self.n, 0)

    def say(self, seeds: int | None) -> str:
        """Show a number of seeds, or the reason why there is none."""
        if seeds is not None:
            return str(seeds)
        if self.sd == 0.0:
            return "no variance"
        return f"over {MOST_SEEDS_NEEDED}" if self.sd > 0.0 else "unknown"


def power(
    losses: Losses,
    plan: Plan,
    costs: Mapping[str, CellCost],
    effect: float | Literal["margin", "observed"] = "margin",
    target: float = POWER,
) -> tuple[Need, ...]:
    """Return the seeds that would decide each planned comparison, in the order of the plan.

    The seeds are for one look at the family's full level. They are a new design: declare them as a
    look in the suite, or the board leaves them out.

    Args:
        losses: row -> seed -> headline loss of the pilot.
        plan: the comparisons, as for `judge_board`.
        costs: row -> cost of one of its seeds. A row without one gives needs without cost.
        effect: difference to find: the margin, the observed difference (optimistic, because large
            differences are partly luck), or a number of nats per byte.
        target: wanted power.

    Raises:
        UserError: an impossible effect or power.
    """
    _check_wanted(effect, target)
    board = align(losses, plan)
    found: dict[Comparison, Need] = {}
    for family, tests in compare_board(board.values, pair_indices(plan)).items():
        comparisons = plan.family(family)
        # One wanted difference for each comparison of the family.
        wanted = (
            np.abs(tests.plain.mean)
            if effect == "observed"
            else np.full(len(comparisons), plan.margin if effect == "margin" else effect)
        )
        # The full level of the family: a new design has one look.
        columns = _columns(tests, wanted, plan.levels()[family], target)
        found.update((c, _need(c, k, columns, costs)) for k, c in enumerate(comparisons))
    return tuple(found[comparison] for comparison in plan.comparisons)


def _check_wanted(effect: float | str, target: float) -> None:
    """Raise a `UserError` for an impossible effect or power."""
    if isinstance(effect, float) and not effect > 0.0:
        raise UserError(
            f"The effect to find is {effect}; it must be positive, in nats a byte, or 'margin' or "
            "'observed'."
        )
    if not 0.0 < target < 1.0:
        raise UserError(
            f"The power asked for is {target}; it must lie between 0 and 1. Common is 0.8."
        )


def _columns(tests: FamilyTests, wanted: Floats, level: float, target: float) -> dict[str, Floats]:
    """Return the numbers of `Need`, `[pair]` each."""
    sd, df, n = np.sqrt(tests.moderated.variance), tests.moderated.df, tests.plain.n
    # The upper 80 % bound of the SD, from the chi-squared distribution of its variance.
    with np.errstate(divide="ignore", invalid="ignore"):
        upper = sd * np.sqrt(df / special.chdtri(np.where(df > 0.0, df, np.nan), 0.8))
    count = len(n)
    return {
        "n": n,
        "sd": sd,
        "detectable": tests.detectable(level, target),
        "effect": wanted,
        "seeds": _seeds(wanted, sd, tests, count, level, target),
        "seeds_upper": _seeds(wanted, upper, tests, count, level, target),
    }


def _seeds(
    effect: Floats, sd: Floats, tests: FamilyTests, count: int, level: float, target: float
) -> Floats:
    """Return the smallest number of seeds at which the power reaches `target`, by bisection.

    It is NaN if none up to `MOST_SEEDS_NEEDED` does.
    """
    known = (sd > 0.0) & (effect > 0.0)
    scale = np.where(known, sd, 1.0)
    prior = tests.moderated.prior
    ratio = prior.variance / scale**2

    def reached(n: Floats) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        return (
            rejection_power(
                np.where(known, effect / scale, 0.0),
                n,
                prior.capped(n - 1.0),
                ratio,
                count,
                level,
            )
            >= target
        )

    # One seed has no power at all, so the lower end never reaches the target.
    low, high = np.ones_like(sd), np.full_like(sd, float(MOST_SEEDS_NEEDED))
    possible = known & reached(high)
    while np.any(high - low > 1.0):
        middle = np.floor((low + high) / 2.0)
        enough = reached(middle)
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return np.where(possible, high, np.nan)


def _need(
    comparison: Comparison, k: int, columns: dict[str, Floats], costs: Mapping[str, CellCost]
) -> Need:
    numbers = {name: float(column[k]) for name, column in columns.items()}
    n = int(numbers["n"])
    seeds, upper = (
        None if np.isnan(numbers[name]) else int(numbers[name]) for name in ("seeds", "seeds_upper")
    )
    pair = [costs.get(comparison.row), costs.get(comparison.control)]
    known = [cost for cost in pair if cost is not None]
    # Every missing seed needs a cell of both rows.
    missing = None if seeds is None or len(known) < 2 else max(seeds - n, 0)
    return Need(
        row=comparison.row,
        control=comparison.control,
        family=comparison.family,
        n=n,
        sd=numbers["sd"],
        detectable=numbers["detectable"],
        effect=numbers["effect"],
        seeds=seeds,
        seeds_upper=upper,
        flops=None if missing is None else missing * sum(cost.flops for cost in known),
        hours=None if missing is None else missing * sum(cost.hours for cost in known),
    )
