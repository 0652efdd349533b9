"""Hold the plan of a board, declared before the run: comparisons, families, margin, looks."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from bench.config.looks import ALLOWED, possible
from bench.errors import UserError
from bench.stats.sequential import family_level

Family = Literal["primary", "secondary"]
FAMILIES: tuple[Family, ...] = ("primary", "secondary")

PRIMARY_SHARE = 0.7
"""Share of alpha for the primary family if there is a secondary one.

The whole board then errs with probability alpha.
"""


@dataclass(frozen=True)
class Comparison:
    """One declared comparison, of `row` with `control`, in both directions."""

    row: str
    control: str
    family: Family = "primary"


def all_pairs(rows: Sequence[str]) -> tuple[Comparison, ...]:
    """Return the secondary family: every pair of rows. Ranks and tiers follow from it."""
    return tuple(Comparison(first, second, "secondary") for first, second in combinations(rows, 2))


@dataclass(frozen=True)
class Plan:
    """The suite's declarations before any seed is run.

    Attributes:
        comparisons: both families. A comparison that is not listed gets no verdict.
        margin: largest difference that does not matter, nats per byte.
        alpha: probability of any false claim of a difference on the whole board, over both families
            and all looks.
        looks: increasing numbers of seeds at which the board is judged. Seeds beyond the last
            reached look are left out. Empty for one look at all seeds.
        largest_effect: largest plausible difference, nats per byte. If the design could not detect
            even that, the verdict is "untestable". With None, only comparisons with fewer than two
            common seeds are untestable.
        twins: (row, its A/A twin): see `noise_floor`.
    """

    comparisons: tuple[Comparison, ...]
    margin: float
    alpha: float = 0.05
    looks: tuple[int, ...] = ()
    largest_effect: float | None = None
    twins: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Refuse a plan that cannot be judged."""
        if not 0.0 < self.alpha < 1.0:
            raise UserError(f"alpha is {self.alpha}; it must lie between 0 and 1. Set 0.05.")
        if not (math.isfinite(self.margin) and self.margin > 0.0):
            raise UserError(
                f"The margin is {self.margin}; it must be a positive number of nats a byte. State "
                "one in the suite."
            )
        if not possible(self.looks):
            raise UserError(f"looks are {list(self.looks)}; they must be {ALLOWED}.")
        if self.largest_effect is not None and not self.largest_effect > 0.0:
            raise UserError(
                f"largest_effect is {self.largest_effect}; it must be a positive number of nats a "
                "byte, or left out."
            )
        for family in FAMILIES:
            _refuse_repeats(self.family(family))

    def family(self, family: Family) -> tuple[Comparison, ...]:
        """Return the comparisons of one family, in the declared order."""
        return tuple(comparison for comparison in self.comparisons if comparison.family == family)

    def share(self, family: Family) -> float:
        """Return a family's share of alpha: all of it for a single family."""
        # With one family there is nothing to share.
        if len({comparison.family for comparison in self.comparisons}) < 2:
            return 1.0
        return PRIMARY_SHARE if family == "primary" else 1.0 - PRIMARY_SHARE

    def levels(self, look: int | None = None) -> dict[Family, float]:
        """Return the level of each family: its share of alpha, by alpha spending at a look."""
        levels: dict[Family, float] = {}
        for family in FAMILIES:
            count, alpha = len(self.family(family)), self.alpha * self.share(family)
            if count:
                levels[family] = (
                    alpha if look is None else family_level(self.looks, look, alpha, count)
                )
        return levels

    @property
    def rows(self) -> tuple[str, ...]:
        """All compared rows, in the order of first mention."""
        return tuple(
            dict.fromkeys(
                name
                for comparison in self.comparisons
                for name in (comparison.row, comparison.control)
            )
        )


def _refuse_repeats(comparisons: Iterable[Comparison]) -> None:
    seen: set[frozenset[str]] = set()
    for comparison in comparisons:
        # Both directions are one comparison.
        pair = frozenset((comparison.row, comparison.control))
        name = f"{comparison.row!r} against {comparison.control!r} ({comparison.family})"
        if len(pair) < 2:
            raise UserError(
                f"The plan compares {name}: a row can't be compared with itself. Remove the "
                "comparison."
            )
        if pair in seen:
            raise UserError(
                f"The plan compares {name} twice; a pair may occur once in a family, in either "
                "order. Remove one."
            )
        seen.add(pair)
