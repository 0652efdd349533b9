"""Judge the A/A control: compare a router with its twin."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from bench.stats.align import Losses
from bench.stats.families import holm
from bench.stats.paired import paired_t


@dataclass(frozen=True)
class NoiseFloor:
    """A router and its twin: the same router with another initialisation and noise.

    Attributes:
        row: the router.
        twin: its twin.
        n: common seeds.
        difference: mean of row - twin, nats per byte.
        sd: SD of the difference over seeds, nats per byte.
        floor: half-width of the 95 % t interval. A router differs from itself by as much.
        sd_upper: upper 90 % bound of `sd` from chi-squared.
        p: paired t test, Holm-adjusted over the twins.
        passed: whether the two do not differ significantly; None below two seeds.
    """

    row: str
    twin: str
    n: int
    difference: float
    sd: float
    floor: float
    sd_upper: float
    p: float
    passed: bool | None


def noise_floor(
    losses: Losses, twins: Sequence[tuple[str, str]], alpha: float = 0.05
) -> tuple[NoiseFloor, ...]:
    """Compare each row with its twin by the plain paired t test.

    A failed check means a fault of the harness or the design, not of the router: the seeds do not
    sample all of the noise. Or one board in 1/alpha was unlucky.

    Args:
        losses: row -> seed -> headline loss, at the seeds of the look.
        twins: (row, its twin).
        alpha: probability of a false alarm over all twins.
    """
    gaps = [_differences(losses, row, twin) for row, twin in twins]
    if not gaps:
        return ()
    # Twins may have different seeds, so their differences are padded with NaN.
    width = max(1, *(len(gap) for gap in gaps))
    padded = np.array([gap + [math.nan] * (width - len(gap)) for gap in gaps])
    tests = paired_t(padded)
    adjusted, half_widths = holm(tests.p), tests.half_width(0.05)
    floors: list[NoiseFloor] = []
    for index, (row, twin) in enumerate(twins):
        n, p = int(tests.n[index]), float(adjusted[index])
        sd = float(np.sqrt(tests.variance[index]))
        floors.append(
            NoiseFloor(
                row=row,
                twin=twin,
                n=n,
                difference=float(tests.mean[index]),
                sd=sd,
                floor=float(half_widths[index]),
                sd_upper=_sd_upper(sd, n),
                p=p,
                passed=None if math.isnan(p) else p > alpha,
            )
        )
    return tuple(floors)


def _sd_upper(sd: float, n: int) -> float:
    """Return the upper 90 % bound: the true SD may be larger than the SD of a few seeds."""
    return sd * math.sqrt((n - 1.0) / float(special.chdtri(n - 1.0, 0.9))) if n > 1 else math.nan


def _differences(losses: Losses, row: str, twin: str) -> list[float]:
    first, second = losses.get(row, {}), losses.get(twin, {})
    gaps = [first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())]
    return [gap for gap in gaps if math.isfinite(gap)]
