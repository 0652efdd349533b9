"""Looking more than once: alpha spending over looks that were declared before the run.

Adding seeds until a difference is significant finds one sooner or later. A suite therefore declares
the numbers of seeds at which it will look, and the error it may make is spread over them by the
O'Brien-Fleming-like spending function of Lan and DeMets (1983, Biometrika 70): little early, nearly
all at the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from bench.stats.paired import Floats


@dataclass(frozen=True)
class Stage:
    """One declared look: how many seeds it takes, alpha spent up to it, and the level that a single
    two-sided test has there.
    """

    seeds: int
    spent: float
    level: float


def spending(fraction: float, alpha: float) -> float:
    """What is spent of a two-sided `alpha` when `fraction` of the declared seeds is in.

    Each side spends its half by 2 - 2 Phi(z / sqrt(fraction)), z the upper alpha/4 point of the
    normal distribution. Never below 1e-250, since levels are divided by.
    """
    return max(float(4.0 * special.ndtr(special.ndtri(alpha / 4.0) / np.sqrt(fraction))), 1e-250)


def nominal_levels(looks: Sequence[int], alpha: float) -> tuple[float, ...]:
    """Two-sided level to test at on each look, so that all looks together err with probability
    `alpha`.

    Boundaries come from the recursion of Armitage, McPherson and Rowe (1969) on Gauss-Legendre
    nodes, for a test statistic with independent normal increments. A look at `looks[k]` seeds has
    information looks[k] / looks[-1].

    Args:
        looks: increasing numbers of seeds.
        alpha: level of all looks together.
    """
    times = np.asarray(looks, dtype=np.float64) / looks[-1]
    nodes, weights = np.polynomial.legendre.leggauss(160)
    points, mass = (
        np.zeros(1),
        np.ones(1),
    )  # where the statistic may stand, none of the looks before crossed
    levels: list[float] = []
    spent, before = 0.0, 0.0
    for time in times.tolist():
        step, target = float(np.sqrt(time - before)), max(spending(time, alpha) - spent, 1e-250)
        level = _solve_level(points, mass, step, time, target, alpha)
        levels.append(level)
        bound = -float(special.ndtri(level / 2.0)) * float(np.sqrt(time))
        fresh = bound * nodes
        kernel = np.exp(-(((fresh[:, None] - points) / step) ** 2) / 2.0) / (
            np.sqrt(2.0 * np.pi) * step
        )
        points, mass = fresh, bound * weights * (kernel @ mass)
        spent, before = spent + target, time
    return tuple(levels)


def _solve_level(
    points: Floats, mass: Floats, step: float, time: float, target: float, alpha: float
) -> float:
    """Nominal level whose bound is crossed with probability `target` after a normal step from
    `points`.
    """

    def excess(log_level: float) -> float:
        edge = -float(special.ndtri(np.exp(log_level) / 2.0)) * float(np.sqrt(time))
        tails = special.ndtr((points - edge) / step) + special.ndtr((-points - edge) / step)
        with np.errstate(divide="ignore"):  # far from the root nothing may be left of the tails
            return float(np.log(mass @ tails)) - float(np.log(target))

    log_target = float(np.log(target))
    if excess(log_target) >= 0.0:
        return float(np.exp(log_target))
    return float(
        np.exp(float(optimize.brentq(excess, log_target, float(np.log(alpha)) + 1e-6, xtol=1e-13)))
    )


def stages(looks: Sequence[int], alpha: float) -> tuple[Stage, ...]:
    """An extension in stages as it would be declared: the alpha each look may spend."""
    levels = nominal_levels(looks, alpha)
    return tuple(
        Stage(look, spending(look / looks[-1], alpha), level)
        for look, level in zip(looks, levels, strict=True)
    )


def family_level(looks: Sequence[int], look: int, alpha: float, comparisons: int) -> float:
    """Level of a whole family at one look: `comparisons` times the nominal level of a single test
    run at alpha / comparisons.

    Holm's procedure at this level then spends at most `alpha` over all looks (Ye, Li, Liu and Yao
    2013).
    """
    if len(looks) < 2:
        return alpha
    return comparisons * nominal_levels(looks, alpha / comparisons)[look]
