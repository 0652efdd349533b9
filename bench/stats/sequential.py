"""Looking more than once: alpha spending over looks that were declared before the run.

Adding seeds until a difference is significant finds one sooner or later. A suite therefore declares the numbers of seeds at
which it will look, and the error it may make is spread over them by the O'Brien-Fleming-like
spending function of Lan and DeMets (1983, Biometrika 70): little early, nearly all at the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from bench.stats.paired import Floats


@dataclass(frozen=True)
class Stage:
    """One declared look: how many seeds it takes, alpha spent up to it, and the level that a single two-sided test has there."""

    seeds: int
    spent: float
    level: float


def spending(fraction: float, alpha: float) -> float:
    """What is spent of a two-sided `alpha` when `fraction` of the declared seeds is in.

    Each side spends its half by 2 - 2 Phi(z / sqrt(fraction)), z the upper alpha/4 point of the normal distribution.
    """
    return float(4.0 * special.ndtr(special.ndtri(alpha / 4.0) / np.sqrt(fraction)))


def nominal_levels(looks: Sequence[int], alpha: float) -> tuple[float, ...]:
    """Two-sided level to test at on each look, so that all looks together err with probability `alpha`.

    Boundaries come from the recursion of Armitage, McPherson and Rowe (1969) on Gauss-Legendre nodes, for a
    test statistic with independent normal increments. A look at `looks[k]` seeds has information looks[k] / looks[-1].

    Args:
        looks: increasing numbers of seeds.
        alpha: level of all looks together.
    """
    times = np.asarray(looks, dtype=np.float64) / looks[-1]
    spent = [spending(time, alpha) for time in times]
    levels: list[float] = [spent[0]]
    nodes, weights = np.polynomial.legendre.leggauss(160)
    bound = -float(special.ndtri(spent[0] / 2.0)) * np.sqrt(times[0])
    points: Floats = bound * nodes
    density: Floats = bound * weights * np.exp(-(points**2) / (2.0 * times[0])) / np.sqrt(2.0 * np.pi * times[0])
    for k in range(1, len(looks)):
        step = float(np.sqrt(times[k] - times[k - 1]))
        target = spent[k] - spent[k - 1]

        def crossing(log_level: float, points: Floats = points, density: Floats = density, step: float = step, k: int = k) -> float:
            edge = -float(special.ndtri(np.exp(log_level) / 2.0)) * float(np.sqrt(times[k]))
            tails = special.ndtr((points - edge) / step) + special.ndtr((-points - edge) / step)
            return float(np.log(density @ tails))

        wanted = float(np.log(target))
        root = float(optimize.brentq(lambda x, f=crossing, w=wanted: f(x) - w, np.log(target), np.log(alpha) + 1e-9, xtol=1e-13))
        levels.append(float(np.exp(root)))
        bound = -float(special.ndtri(np.exp(root) / 2.0)) * float(np.sqrt(times[k]))
        fresh: Floats = bound * nodes
        kernel = np.exp(-(((fresh[:, None] - points) / step) ** 2) / 2.0) / (np.sqrt(2.0 * np.pi) * step)
        density = bound * weights * (kernel @ density)
        points = fresh
    return tuple(levels)


def stages(looks: Sequence[int], alpha: float) -> tuple[Stage, ...]:
    """An extension in stages as it would be declared: the alpha each look may spend."""
    levels = nominal_levels(looks, alpha)
    return tuple(Stage(look, spending(look / looks[-1], alpha), level) for look, level in zip(looks, levels, strict=True))


def family_level(looks: Sequence[int], look: int, alpha: float, comparisons: int) -> float:
    """Level of a whole family at one look: `comparisons` times the nominal level of a single test run at alpha / comparisons.

    Holm's procedure at this level then spends at most `alpha` over all looks (Ye, Li, Liu and Yao 2013).
    """
    if len(looks) < 2:
        return alpha
    return comparisons * nominal_levels(looks, alpha / comparisons)[look]
