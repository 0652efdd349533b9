"""Spread alpha over several looks that were declared before the run (alpha spending).

If seeds are added until a difference is significant, one is found sooner or later. So a suite
declares its looks, and alpha is spread over them by the O'Brien-Fleming-like spending function of
Lan and DeMets (1983, Biometrika 70): little early, nearly all at the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import optimize, special

from bench.stats.paired import Floats


@dataclass(frozen=True)
class Stage:
    """One declared look: its number of seeds, the spent alpha, and the level of a single test."""

    seeds: int
    spent: float
    level: float


def spending(fraction: float, alpha: float) -> float:
    """Return the part of a two-sided `alpha` that is spent at a `fraction` of the declared seeds.

    Each side spends its half by 2 - 2 Phi(z / sqrt(fraction)), with z the upper alpha/4 point of
    the normal distribution. It is at least 1e-250, because other numbers are divided by levels.
    """
    return max(float(4.0 * special.ndtr(special.ndtri(alpha / 4.0) / np.sqrt(fraction))), 1e-250)


def nominal_levels(looks: Sequence[int], alpha: float) -> tuple[float, ...]:
    """Return the two-sided level of each look, so that all looks together err with `alpha`.

    Boundaries come from the recursion of Armitage, McPherson and Rowe (1969) on Gauss-Legendre
    nodes, for a test statistic with independent normal increments. A look at `looks[k]` seeds has
    the information looks[k] / looks[-1].

    Args:
        looks: increasing numbers of seeds.
        alpha: level of all looks together.
    """
    times = np.asarray(looks, dtype=np.float64) / looks[-1]
    walk = _Walk()
    levels: list[float] = []
    spent = 0.0
    for time in times.tolist():
        target = max(spending(time, alpha) - spent, 1e-250)
        level = _solve_level(*walk.before(time), time, target, alpha)
        levels.append(level)
        walk = walk.after(time, level)
        spent += target
    return tuple(levels)


@dataclass(frozen=True)
class _Walk:
    """The test statistic on its way over the looks, as long as it crossed no bound.

    Attributes:
        points: Gauss-Legendre nodes, places of the statistic (its value times the root of `time`).
        mass: their probabilities.
        time: share of the seeds seen.
    """

    points: Floats = field(default_factory=lambda: np.zeros(1))
    mass: Floats = field(default_factory=lambda: np.ones(1))
    time: float = 0.0

    def before(self, time: float) -> tuple[Floats, Floats, float]:
        """Return places, probabilities, and the SD of the step to the next look."""
        return self.points, self.mass, float(np.sqrt(time - self.time))

    def crossing(self, time: float, level: float) -> float:
        """Return the probability to cross the bound of the next look."""
        return _tails(*self.before(time), time, level)

    def after(self, time: float, level: float) -> "_Walk":
        """Return the walk after the next look, cut at its bound."""
        points, mass, step = self.before(time)
        nodes, weights = np.polynomial.legendre.leggauss(160)
        bound = -float(special.ndtri(level / 2.0)) * float(np.sqrt(time))
        # The density after this look: a normal step from each place.
        fresh = bound * nodes
        kernel = np.exp(-(((fresh[:, None] - points) / step) ** 2) / 2.0) / (
            np.sqrt(2.0 * np.pi) * step
        )
        return _Walk(fresh, bound * weights * (kernel @ mass), time)


def _tails(points: Floats, mass: Floats, step: float, time: float, level: float) -> float:
    """Return the probability to cross the bound of `level` after a normal step."""
    edge = -float(special.ndtri(level / 2.0)) * float(np.sqrt(time))
    tails = special.ndtr((points - edge) / step) + special.ndtr((-points - edge) / step)
    return float(mass @ tails)


def chance_over_schedules(
    schedules: Sequence[Sequence[int]], alpha: float, comparisons: int
) -> float:
    """Return a bound on the chance of a false difference if all looks of all schedules are taken.

    A schedule that is declared after the last look of another spends alpha again. Each look then
    errs at the milder of its levels. The bound adds up the comparisons, like Bonferroni's.

    Args:
        schedules: the declared looks, one after the other.
        alpha: level that each schedule was declared for.
        comparisons: size of the family.
    """
    mildest: dict[int, float] = {}
    for looks in schedules:
        for look, level in zip(looks, nominal_levels(looks, alpha / comparisons), strict=True):
            mildest[look] = max(level, mildest.get(look, 0.0))
    # Walks that crossed a bound have erred once, and err no second time.
    walk, chance = _Walk(), 0.0
    for look, level in sorted(mildest.items()):
        time = look / max(mildest)
        chance += walk.crossing(time, level)
        walk = walk.after(time, level)
    return min(comparisons * chance, 1.0)


def _solve_level(
    points: Floats, mass: Floats, step: float, time: float, target: float, alpha: float
) -> float:
    """Return the level whose bound is crossed with probability `target` after a normal step."""

    def excess(log_level: float) -> float:
        # Far from the root the tails may underflow to 0.
        with np.errstate(divide="ignore"):
            crossed = np.log(_tails(points, mass, step, time, float(np.exp(log_level))))
        return float(crossed) - float(np.log(target))

    # A single look needs exactly the target; after others, the level lies above it.
    log_target = float(np.log(target))
    if excess(log_target) >= 0.0:
        return float(np.exp(log_target))
    return float(
        np.exp(float(optimize.brentq(excess, log_target, float(np.log(alpha)) + 1e-6, xtol=1e-13)))
    )


def stages(looks: Sequence[int], alpha: float) -> tuple[Stage, ...]:
    """Return the stages of a declared extension, with the alpha of each look."""
    levels = nominal_levels(looks, alpha)
    return tuple(
        Stage(look, spending(look / looks[-1], alpha), level)
        for look, level in zip(looks, levels, strict=True)
    )


def family_level(looks: Sequence[int], look: int, alpha: float, comparisons: int) -> float:
    """Return the level of a whole family at one look.

    It is `comparisons` times the level of a single test at alpha / comparisons. Holm's procedure at
    this level spends at most `alpha` over all looks (Ye, Li, Liu and Yao 2013).
    """
    # A single look spends everything.
    if len(looks) < 2:
        return alpha
    return comparisons * nominal_levels(looks, alpha / comparisons)[look]
