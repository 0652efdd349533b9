"""Moderate variances: with few seeds, the variance of a difference borrows from the other rows.

The model is limma's (Smyth 2004, Statistical Applications in Genetics and Molecular Biology
3, article 3): true variances scatter about a prior s0^2 as s0^2 d0 / chi^2_d0. Three things differ,
because comparisons on one board share controls, unlike genes, and because boards are small. Without
each of them, simulated null boards exceeded their level (docs/decisions, statistics).

1. The prior degrees of freedom d0 are fitted twice, to the variances of the differences and to the
   variances of the rows' residuals, and the smaller counts. Differences that share a noisy control
   vary together and look more alike than they are. Residuals do not show that some rows move
   together.
2. d0 is at most `PRIOR_DF_CAP` times a difference's own degrees of freedom.
3. The prior variance is at least the median of the observed variances.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from bench.stats.paired import Bound, Floats, PairedTests, TTests

PRIOR_DF_CAP = 2.0
"""Largest weight of the prior against a difference's own variance: 4 + 2 df at 3 seeds."""


@dataclass(frozen=True)
class Prior:
    """Prior of the variance of one row or difference, fitted on a whole board.

    Shapes: `[...]`, one per board; after `board_prior`, `[..., 1]` or `[..., pair]`.

    Attributes:
        df: prior degrees of freedom; 0 for no moderation, infinite if the variances differ only by
            chance.
        variance: prior variance.
    """

    df: Floats
    variance: Floats

    def capped(self, df: Floats) -> Floats:
        """Return the prior degrees of freedom for differences with `df` of their own."""
        return np.minimum(self.df, PRIOR_DF_CAP * df)


@dataclass(frozen=True)
class ModeratedTests(TTests):
    """t tests of mean differences by moderated variances, `[..., pair]`.

    Attributes:
        n: common seeds.
        mean: mean difference, nats per byte.
        variance: moderated variance of a single difference.
        df: degrees of freedom of `variance`, with d0.
        prior_df: d0 after the cap.
        prior: prior of the variances, before the cap.
    """

    n: Floats
    mean: Floats
    variance: Floats
    df: Floats
    prior_df: Floats
    prior: Prior

    @property
    def error(self) -> Floats:
        """Standard error of the mean."""
        # Never 0, so that a mean without variance is infinitely far from any bound.
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.maximum(np.sqrt(self.variance / self.n), np.finfo(np.float64).tiny)

    def below(self, bound: Bound) -> Floats:
        """Return p values of a true difference of `bound` or above."""
        with np.errstate(over="ignore"):
            return np.asarray(stats.t.sf(bound, self.df, self.mean, self.error))

    def above(self, bound: Bound) -> Floats:
        """Return p values of a true difference of `bound` or below."""
        with np.errstate(over="ignore"):
            return np.asarray(stats.t.cdf(bound, self.df, self.mean, self.error))

    def half_width(self, level: float) -> Floats:
        """Return the half-widths of the intervals around the means, each at `level`."""
        return np.asarray(stats.t.isf(level / 2.0, self.df) * self.error)


def trigamma_inverse(x: Floats) -> Floats:
    """Solve trigamma(y) = x by Newton's method on 1 / trigamma (Smyth 2004, appendix)."""
    x = np.asarray(x, dtype=np.float64)
    y = 0.5 + 1.0 / x
    for _ in range(50):
        trigamma = special.polygamma(1, y)
        step = trigamma * (1.0 - trigamma / x) / special.polygamma(2, y)
        y = y + step
        if np.all(np.abs(step) <= 1e-12 * y):
            break
    # For large x trigamma is 1 / y^2, and Newton's method would lose its digits.
    return np.where(x > 1e7, 1.0 / np.sqrt(x), y)


def fit_prior(variance: Floats, df: Floats) -> Prior:
    """Fit a prior by the moments of log variance (Smyth 2004, section 6.2).

    Both arguments are `[..., k]`, and NaN entries are left out. With fewer than three variances
    there is nothing to learn from, and d0 is 0.
    """
    df = np.where(np.isnan(variance) | (df < 1.0), np.nan, df)
    variance = np.where(np.isnan(df), np.nan, variance)
    count = (~np.isnan(df)).sum(-1)
    if variance.shape[-1] == 0 or not (count >= 3).any():
        return Prior(np.zeros(count.shape), np.full(count.shape, np.nan))
    # A variance of 0 would have an infinite logarithm.
    floor = 1e-5 * np.nanmedian(variance, axis=-1, keepdims=True)
    usable = floor > 0.0
    log = (
        np.log(np.where(usable, np.maximum(variance, floor), 1.0))
        - special.digamma(df / 2.0)
        + np.log(df / 2.0)
    )
    # Sampling alone scatters the logarithms by trigamma(df / 2). The excess comes from the prior.
    centre = np.nanmean(log, axis=-1)
    excess = np.nanvar(log, axis=-1, ddof=1) - np.nanmean(special.polygamma(1, df / 2.0), axis=-1)
    prior_df = np.where(
        excess > 0.0, 2.0 * trigamma_inverse(np.asarray(np.maximum(excess, 1e-12))), np.inf
    )
    half = np.minimum(prior_df, 1e12) / 2.0
    fitted = np.exp(centre + special.digamma(half) - np.log(half))
    alive = usable[..., 0] & (count >= 3)
    return Prior(np.where(alive, prior_df, 0.0), np.where(alive, fitted, np.nan))


def row_variances(values: Floats) -> tuple[Floats, Floats]:
    """Return the residual variance of each row in the layout row + seed, and its df, `[..., row]`.

    A row's residual sum of squares is divided by its expectation under equal variances, the sum of
    (1 - leverage). A board with missing cells is fitted by least squares, one board at a time.
    """
    # A complete board has closed forms, also for many boards at once.
    if not np.isnan(values).any():
        rows, seeds = values.shape[-2:]
        centred = values - values.mean(-2, keepdims=True)
        residuals = centred - centred.mean(-1, keepdims=True)
        expected = max((seeds - 1.0) * (1.0 - 1.0 / rows), 1e-300)
        variance = (residuals**2).sum(-1) / expected
        df = np.full(variance.shape, seeds - 1.0)
    else:
        variance, df = _unbalanced(values)
    return np.where(df >= 1.0, variance, np.nan), df


def _unbalanced(values: Floats) -> tuple[Floats, Floats]:
    rows, seeds = values.shape
    row, seed = np.nonzero(~np.isnan(values))
    design = np.zeros((row.size, rows + seeds))
    design[np.arange(row.size), row] = 1.0
    design[np.arange(row.size), rows + seed] = 1.0
    # The design is not of full rank; its left singular vectors span the fit all the same.
    basis, sizes, _ = np.linalg.svd(design, full_matrices=False)
    basis = basis[:, sizes > 1e-10 * sizes.max(initial=1.0)]
    observed = values[row, seed]
    residuals = observed - basis @ (basis.T @ observed)
    freedom = 1.0 - (basis**2).sum(1)
    squares = np.bincount(row, residuals**2, rows)
    expected = np.bincount(row, freedom, rows)
    df = np.where(expected > 1e-8, np.bincount(row, minlength=rows) - 1.0, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return squares / expected, df


def board_prior(differences: Floats, df: Floats, rows: Prior) -> Prior:
    """Return the prior of one family, `[..., 1]`.

    It has the smaller d0 of differences and rows, and at least the median variance.

    Args:
        differences: sample variances, `[..., pair]`.
        df: their degrees of freedom, `[..., pair]`.
        rows: prior fitted to the residual variances of the rows.
    """
    own = fit_prior(differences, df)
    prior_df = np.asarray(np.minimum(own.df, rows.df))
    half = np.clip(prior_df, 1e-3, 1e12) / 2.0
    own_half = np.clip(own.df, 1e-3, 1e12) / 2.0
    # With another d0 the same logarithms mean another prior variance.
    refitted = own.variance * np.exp(
        special.digamma(half) - np.log(half) - special.digamma(own_half) + np.log(own_half)
    )
    defined = prior_df > 0.0
    known = np.where(defined[..., None], np.where(df >= 1.0, differences, np.nan), 1.0)
    variance = np.maximum(refitted, np.nanmedian(known, axis=-1)) if known.shape[-1] else refitted
    return Prior(prior_df[..., None], np.where(defined, variance, np.nan)[..., None])


def moderate(plain: PairedTests, rows: Prior) -> ModeratedTests:
    """Set up the moderated tests of one family.

    Args:
        plain: paired differences of the family.
        rows: prior fitted to the residual variances of all rows.
    """
    return squeeze(plain, board_prior(plain.variance, np.maximum(plain.n - 1.0, 0.0), rows))


def squeeze(plain: PairedTests, prior: Prior) -> ModeratedTests:
    """Squeeze the sample variances of differences towards their prior.

    The result is (d0 s0^2 + d s^2) / (d0 + d), with d0 + d degrees of freedom.
    """
    df = np.maximum(plain.n - 1.0, 0.0)
    prior_df = prior.capped(df)
    centre = np.where(prior_df > 0.0, prior.variance, 0.0)
    total = prior_df + df
    with np.errstate(divide="ignore", invalid="ignore"):
        squeezed = (prior_df * centre + df * plain.variance) / total
    variance = np.where(df >= 1.0, squeezed, np.nan)
    return ModeratedTests(plain.n, plain.mean, variance, total, prior_df, prior)
