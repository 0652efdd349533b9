"""Test seed-paired differences between rows by scipy's plain tests.

Arrays end in the axes `row seed` (losses) or `pair seed` (differences). NaN marks a missing seed.
Leading axes are independent boards, so that a simulation of ten thousand boards runs the same code.
"""

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
Pairs = NDArray[np.intp]
Bound = float | Floats
"""One bound for all pairs, or `[pair]`; infinite for none."""

SIGN_FLIPS = 10_000
"""Largest number of sign assignments: all of them up to 13 seeds, then as many at random."""


class TTests(ABC):
    """t tests of mean differences, `[..., pair]`. Every p value is NaN below two common seeds.

    Without variance a p value is its limit: 0 or 1, and 0.5 if the mean is the bound.
    """

    @abstractmethod
    def below(self, bound: Bound) -> Floats:
        """Return p values of a true difference of `bound` or above."""

    @abstractmethod
    def above(self, bound: Bound) -> Floats:
        """Return p values of a true difference of `bound` or below."""

    @abstractmethod
    def half_width(self, level: float) -> Floats:
        """Return the half-widths of the intervals around the means, each at `level`."""

    def outside(self, low: Bound, high: Bound) -> Floats:
        """Return p values of a true difference from `low` to `high`.

        The test is two-sided, so a test in one direction (the other bound infinite) has half the
        level.
        """
        return np.minimum(2.0 * np.minimum(self.below(low), self.above(high)), 1.0)

    def inside(self, low: Bound, high: Bound) -> Floats:
        """Return p values of a true difference at or beyond `low` or `high`.

        It is the larger of two one-sided tests (Schuirmann 1987): that a difference is small is a
        claim that needs its own test.
        """
        return np.maximum(self.below(high), self.above(low))


@dataclass(frozen=True)
class PairedTests(TTests):
    """Student's paired t tests by scipy.

    Attributes:
        differences: first minus second row of each pair, `[..., pair, seed]`, nats per byte.
        n: common seeds of both rows, `[..., pair]`.
        mean: mean difference; negative if the first row of the pair is better.
        variance: sample variance of the differences, n - 1 in the denominator.
    """

    differences: Floats
    n: Floats
    mean: Floats
    variance: Floats

    @property
    def p(self) -> Floats:
        """Two-sided p value of no difference."""
        return self.outside(0.0, 0.0)

    def below(self, bound: Bound) -> Floats:
        """Return p values of a true difference of `bound` or above."""
        return self._p(bound, "less")

    def above(self, bound: Bound) -> Floats:
        """Return p values of a true difference of `bound` or below."""
        return self._p(bound, "greater")

    def half_width(self, level: float) -> Floats:
        """Return the half-widths of the intervals around the means, each at `level`."""
        low, high = self._test(0.0, "two-sided").confidence_interval(1.0 - level)
        return np.asarray((high - low) / 2.0)

    def _p(self, bound: Bound, alternative: Literal["less", "greater"]) -> Floats:
        # scipy returns NaN if the mean is the bound and nothing varies: 0 / 0.
        at_bound = (self.mean == bound) & (self.n > 1.0)
        return np.where(at_bound, 0.5, self._test(bound, alternative).pvalue)

    def _test(self, bound: Bound, alternative: Literal["less", "greater", "two-sided"]) -> Any:
        bounds = np.broadcast_to(bound, self.mean.shape)[..., None]
        # scipy warns of too few seeds, and of differences that do not vary.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return stats.ttest_1samp(
                self.differences, bounds, axis=-1, nan_policy="omit", alternative=alternative
            )


def pair_differences(values: Floats, pairs: Pairs) -> Floats:
    """Return first minus second row of each pair, `[..., pair, seed]`, from `[..., row, seed]`.

    A difference is NaN unless both rows have the seed.
    """
    return values[..., pairs[:, 0], :] - values[..., pairs[:, 1], :]


def paired_t(differences: Floats) -> PairedTests:
    """Set up the paired t test of each row of `[..., pair, seed]`."""
    # NumPy warns of pairs with fewer than two seeds, which are NaN.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mean = np.nanmean(differences, axis=-1)
        variance = np.nanvar(differences, axis=-1, ddof=1)
    # Rounding of the mean leaves a variance of order 1e-32 if all differences are equal.
    scale = np.max(np.abs(np.nan_to_num(differences)), axis=-1, initial=0.0)
    variance = np.where(variance <= (1e-14 * scale) ** 2, 0.0, variance)
    n = (~np.isnan(differences)).sum(-1).astype(np.float64)
    return PairedTests(differences, n, mean, variance)


def sign_flip(differences: Floats) -> float:
    """Return the two-sided p value of the sign-flip test of one pair, `[seed]` without NaN.

    It needs no normality, only differences that are symmetric about 0 under the hypothesis. It is
    exact up to `SIGN_FLIPS` assignments of signs; then its smallest value is 2^(1-n).
    """
    # With one difference, both signs are equally far from 0.
    if differences.size < 2:
        return 1.0 if differences.size else float("nan")
    test = stats.permutation_test(
        (differences,),
        lambda values, axis: values.sum(axis),
        permutation_type="samples",
        n_resamples=SIGN_FLIPS,
        vectorized=True,
        rng=0,
    )
    return float(test.pvalue)


def seed_correlation(values: Floats) -> Floats:
    """Return the Pearson correlation over common seeds between all rows, `[row, row]`.

    It is NaN below three common seeds. It is the gain of pairing: pairing multiplies the variance
    of a difference by (1 - correlation).
    """
    correlation = np.full((len(values), len(values)), np.nan)
    for i, j in combinations_with_replacement(range(len(values)), 2):
        common = ~np.isnan(values[i] + values[j])
        if common.sum() >= 3:
            # scipy warns of a row that does not vary; its correlation is NaN.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = stats.pearsonr(values[i, common], values[j, common])
            correlation[i, j] = correlation[j, i] = found.statistic
    return correlation
