"""Equivalence by two one-sided tests.

That a difference is small is a claim of its own, and needs its own test.
"""

import numpy as np
from scipy import special

from bench.stats.paired import Floats


def tost(mean: Floats, variance: Floats, n: Floats, df: Floats, margin: float) -> Floats:
    """P value of the hypothesis that |difference| >= margin (Schuirmann 1987): the larger of the
    two one-sided ones.

    Args:
        mean: mean difference, nats a byte.
        variance: of a single difference; the standard error is sqrt(variance / n).
        n: number of differences.
        df: degrees of freedom of `variance`.
        margin: half-width of the zone of equivalence, nats a byte.
    """
    distance = margin - np.abs(mean)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(distance == 0.0, 0.0, distance / np.sqrt(variance / n))
        p = special.stdtr(df, -t)
    return np.where(np.isnan(mean) | ~(df > 0.0), np.nan, p)
