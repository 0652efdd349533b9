"""Seed-paired differences between rows: the plain tests that everything else is set beside.

Arrays end in the axes `row seed` (losses) or `pair seed` (differences); NaN marks a seed that is
not there. Leading axes are independent boards, so that a simulation of ten thousand runs this very
code.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]
Pairs = NDArray[np.intp]


@dataclass(frozen=True)
class PairedTests:
    """Paired t tests, one a pair; NaN where fewer than two seeds are common.

    Attributes:
        n: seeds common to both rows, `[..., pair]`.
        mean: mean difference, nats a byte; negative where the first row of the pair is better.
        variance: sample variance of the differences, n - 1 in the denominator.
        p: two-sided.
    """

    n: Floats
    mean: Floats
    variance: Floats
    p: Floats


def pair_differences(values: Floats, pairs: Pairs) -> Floats:
    """Losses `[..., row, seed]` -> first minus second of each pair, `[..., pair, seed]`.

    NaN unless both rows have the seed.
    """
    return values[..., pairs[:, 0], :] - values[..., pairs[:, 1], :]


def two_sided_p(mean: Floats, variance: Floats, n: Floats, df: Floats) -> Floats:
    """P value of a t test of `mean` against 0 with a standard error of sqrt(variance / n).

    Without variance the answer is the limit: 1 where the mean is 0 as well, else 0.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(mean == 0.0, 0.0, np.abs(mean) / np.sqrt(variance / n))
        p = 2.0 * special.stdtr(df, -t)
    return np.where(np.isnan(mean) | ~(df > 0.0), np.nan, p)


def paired_t(differences: Floats) -> PairedTests:
    """Student's paired t test of each row of `[..., pair, seed]`."""
    present = ~np.isnan(differences)
    n = present.sum(-1).astype(np.float64)
    filled = np.where(present, differences, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = filled.sum(-1) / n
        squares = np.where(present, differences - mean[..., None], 0.0) ** 2
        variance = np.where(n > 1.0, squares.sum(-1) / (n - 1.0), np.nan)
    # Rounding of the mean leaves a variance of order 1e-32 where all differences are one number.
    scale = np.max(np.abs(filled), axis=-1, initial=0.0)
    variance = np.where(variance <= (1e-14 * scale) ** 2, 0.0, variance)
    return PairedTests(n, mean, variance, two_sided_p(mean, variance, n, n - 1.0))


def sign_flip(differences: Floats) -> float:
    """Exact two-sided p value of the sign-flip test of one pair, `[seed]` without NaN.

    Counts, among all 2^n assignments of signs, those whose |sum| is at least the observed one, by
    meeting in the middle (Horowitz and Sahni 1974): O(n 2^(n/2)) rather than O(2^n). Valid without
    normality, for differences symmetric about 0 under the hypothesis. Its smallest value is
    2^(1-n).
    """
    if differences.size == 0:
        return float("nan")
    sizes = np.abs(differences)
    observed = abs(float(differences.sum())) - 1e-12 * float(sizes.sum())
    half = differences.size // 2
    left, right = _signed_sums(sizes[:half]), np.sort(_signed_sums(sizes[half:]))
    above = right.size - np.searchsorted(right, observed - left, side="left")
    below = np.searchsorted(right, -observed - left, side="right")
    if observed <= 0.0:
        return 1.0
    return float(above.sum() + below.sum()) / 2.0**differences.size


def _signed_sums(sizes: Floats) -> Floats:
    sums = np.zeros(1)
    for size in sizes:
        sums = np.concatenate([sums - size, sums + size])
    return sums


def hodges_lehmann(differences: Floats) -> Floats:
    """Median of the Walsh averages of each pair, `[pair, seed] -> [pair]` (Hodges and Lehmann
    1963); NaN without seeds.
    """
    first, second = np.triu_indices(differences.shape[-1])
    averages = np.sort((differences[..., first] + differences[..., second]) / 2.0, axis=-1)
    count = (~np.isnan(averages)).sum(-1)
    middle = np.stack([(np.maximum(count, 1) - 1) // 2, count // 2], axis=-1)
    middle = np.minimum(middle, averages.shape[-1] - 1)
    estimate = np.take_along_axis(averages, middle, axis=-1).mean(-1)
    return np.where(count > 0, estimate, np.nan)


def seed_correlation(values: Floats) -> Floats:
    """Pearson correlation over common seeds between all rows, `[row, seed] -> [row, row]`; NaN
    below three common seeds.

    Pairing pays by this much: the variance of a difference is that of two unpaired rows times (1 -
    correlation).
    """
    present = (~np.isnan(values)).astype(np.float64)
    centre = np.divide(
        np.nansum(values, -1), present.sum(-1), out=np.zeros(len(values)), where=present.sum(-1) > 0
    )
    filled = np.where(present > 0, values - centre[:, None], 0.0)
    n = present @ present.T
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = filled @ present.T / n
        covariance = filled @ filled.T / n - mean * mean.T
        variance = (filled**2) @ present.T / n - mean**2
        correlation = covariance / np.sqrt(variance * variance.T)
    return np.where(n >= 3, np.clip(correlation, -1.0, 1.0), np.nan)
