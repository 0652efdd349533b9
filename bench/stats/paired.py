"""Seed-paired differences between rows, and the plain tests of them, which are scipy's.

Arrays end in the axes `row seed` (losses) or `pair seed` (differences); NaN marks a seed that is
not there. Leading axes are independent boards, so that a simulation of ten thousand runs this very
code.
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
"""Most assignments of signs that are tried: all of them up to 13 seeds, then as many at random."""


class TTests(ABC):
    """t tests of mean differences, `[..., pair]`; every p value is NaN below two common seeds.

    Without variance an answer is its limit: the mean is known, and 0.5 where it is the bound.
    """

    @abstractmethod
    def below(self, bound: Bound) -> Floats:
        """P values of a true difference of `bound` or above."""

    @abstractmethod
    def above(self, bound: Bound) -> Floats:
        """P values of a true difference of `bound` or below."""

    @abstractmethod
    def half_width(self, level: float) -> Floats:
        """Half-widths of the intervals around the means, each at `level`."""

    def outside(self, low: Bound, high: Bound) -> Floats:
        """P value of the hypothesis that the true difference lies from `low` to `high`.

        Two-sided, so that a test in one direction (the other bound infinite) has half the level.
        """
        return np.minimum(2.0 * np.minimum(self.below(low), self.above(high)), 1.0)

    def inside(self, low: Bound, high: Bound) -> Floats:
        """P value of the hypothesis that the true difference lies at or beyond `low` or `high`.

        The larger of two one-sided tests (Schuirmann 1987): that a difference is small is a claim
        of its own, and needs its own test.
        """
        return np.maximum(self.below(high), self.above(low))


@dataclass(frozen=True)
class PairedTests(TTests):
    """Student's paired t tests by scipy.

    Attributes:
        differences: first minus second row of each pair, `[..., pair, seed]`, nats a byte.
        n: seeds common to both rows, `[..., pair]`.
        mean: mean difference; negative where the first row of the pair is better.
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
        """P values of a true difference of `bound` or above."""
        return self._p(bound, "less")

    def above(self, bound: Bound) -> Floats:
        """P values of a true difference of `bound` or below."""
        return self._p(bound, "greater")

    def half_width(self, level: float) -> Floats:
        """Half-widths of the intervals around the means, each at `level`."""
        low, high = self._test(0.0, "two-sided").confidence_interval(1.0 - level)
        return np.asarray((high - low) / 2.0)

    def _p(self, bound: Bound, alternative: Literal["less", "greater"]) -> Floats:
        # scipy says NaN where the mean is the bound and nothing varies: 0 / 0.
        at_bound = (self.mean == bound) & (self.n > 1.0)
        return np.where(at_bound, 0.5, self._test(bound, alternative).pvalue)

    def _test(self, bound: Bound, alternative: Literal["less", "greater", "two-sided"]) -> Any:
        bounds = np.broadcast_to(bound, self.mean.shape)[..., None]
        with warnings.catch_warnings():  # of too few seeds, and of differences that do not vary
            warnings.simplefilter("ignore")
            return stats.ttest_1samp(
                self.differences, bounds, axis=-1, nan_policy="omit", alternative=alternative
            )


def pair_differences(values: Floats, pairs: Pairs) -> Floats:
    """Losses `[..., row, seed]` -> first minus second of each pair, `[..., pair, seed]`.

    NaN unless both rows have the seed.
    """
    return values[..., pairs[:, 0], :] - values[..., pairs[:, 1], :]


def paired_t(differences: Floats) -> PairedTests:
    """Set up the paired t test of each row of `[..., pair, seed]`."""
    with warnings.catch_warnings():  # of pairs with fewer than two seeds, which are NaN
        warnings.simplefilter("ignore")
        mean = np.nanmean(differences, axis=-1)
        variance = np.nanvar(differences, axis=-1, ddof=1)
    # Rounding of the mean leaves a variance of order 1e-32 where all differences are one number.
    scale = np.max(np.abs(np.nan_to_num(differences)), axis=-1, initial=0.0)
    variance = np.where(variance <= (1e-14 * scale) ** 2, 0.0, variance)
    n = (~np.isnan(differences)).sum(-1).astype(np.float64)
    return PairedTests(differences, n, mean, variance)


def sign_flip(differences: Floats) -> float:
    """Two-sided p value of the sign-flip test of one pair, `[seed]` without NaN.

    Valid without normality, for differences symmetric about 0 under the hypothesis. Exact while
    there are at most `SIGN_FLIPS` assignments of signs; its smallest value is then 2^(1-n).
    """
    if differences.size < 2:  # both assignments of one sign are as far from 0
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
    """Pearson correlation over common seeds between all rows, `[row, seed] -> [row, row]`.

    NaN below three common seeds. Pairing pays by this much: the variance of a difference is that of
    two unpaired rows times (1 - correlation).
    """
    correlation = np.full((len(values), len(values)), np.nan)
    for i, j in combinations_with_replacement(range(len(values)), 2):
        common = ~np.isnan(values[i] + values[j])
        if common.sum() >= 3:
            with warnings.catch_warnings():  # of a row that does not vary, which is NaN
                warnings.simplefilter("ignore")
                found = stats.pearsonr(values[i, common], values[j, common])
            correlation[i, j] = correlation[j, i] = found.statistic
    return correlation
