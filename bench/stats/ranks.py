"""Ranks that say how sure they are, tiers, and the rank tests of Friedman and Nemenyi."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from bench.stats.paired import Floats

FRIEDMAN_MIN_SEEDS = 5
"""Fewer complete seeds than this, and the chi-squared and F approximations are not near enough."""


@dataclass(frozen=True)
class Rank:
    """Place of one row.

    Attributes:
        mean: mean loss as over all seeds of the board, nats a byte; orders the rows, proves nothing.
        low: best rank it may have, 1 + rows shown to be better.
        high: worst rank it may have, rows - rows shown to be worse.
        tier: 1 for the best; a row opens a new tier when the first row of the tier before is shown
            to be better than it.
    """

    row: str
    mean: float
    low: int
    high: int
    tier: int


@dataclass(frozen=True)
class Friedman:
    """Rank test over complete seeds: are the rows alike at all? Supplementary; no verdict hangs on
    it.

    Attributes:
        n: complete seeds.
        mean_ranks: row -> mean rank over seeds, 1 is best, ties share.
        chi_squared: Friedman's statistic, corrected for ties.
        p: of the F approximation of Iman and Davenport (1980), better at few seeds than
            chi-squared.
        critical_difference: of mean ranks, Nemenyi at level alpha (Demsar 2006, section 3.2.2).
    """

    n: int
    mean_ranks: dict[str, float]
    chi_squared: float
    p: float
    critical_difference: float


def rank_intervals(means: Mapping[str, float], better: set[tuple[str, str]]) -> tuple[Rank, ...]:
    """Simultaneous rank intervals and tiers from all pairwise verdicts, best mean first.

    When no pair of `better` is wrong every interval holds the true rank, so the intervals together
    have the coverage of the family of pairs (Al Mohamad, Goeman and van Zwet 2022, Biometrika 109).

    Args:
        means: row -> mean loss; a NaN mean gives a place at the end.
        better: (winner, loser) for each pair shown to differ.
    """
    order = sorted(means, key=lambda row: (bool(np.isnan(means[row])), means[row], row))
    wins = dict.fromkeys(order, 0)
    losses = dict.fromkeys(order, 0)
    for winner, loser in better:
        if winner in wins and loser in losses:
            wins[winner] += 1
            losses[loser] += 1
    ranks: list[Rank] = []
    tier, leader = 1, order[0] if order else ""
    for row in order:
        if (leader, row) in better:
            tier, leader = tier + 1, row
        ranks.append(Rank(row, means[row], 1 + losses[row], len(order) - wins[row], tier))
    return tuple(ranks)


def friedman(rows: Sequence[str], values: Floats, alpha: float) -> Friedman | None:
    """Friedman's test on the seeds that every row has, `[row, seed]`.

    None with under 3 rows or `FRIEDMAN_MIN_SEEDS` seeds.
    """
    complete = values[:, ~np.isnan(values).any(axis=0)]
    rows_, n = complete.shape
    if rows_ < 3 or n < FRIEDMAN_MIN_SEEDS or np.all(complete == complete[:1]):
        return None
    ranked = stats.rankdata(complete, axis=0)
    means = ranked.mean(axis=1)
    chi_squared = float(stats.friedmanchisquare(*complete).statistic)
    room = n * (rows_ - 1) - chi_squared
    statistic = (n - 1) * chi_squared / room if room > 0.0 else np.inf
    p = float(special.fdtrc(rows_ - 1, (rows_ - 1) * (n - 1), statistic))
    by_row = {row: float(mean) for row, mean in zip(rows, means, strict=True)}
    return Friedman(n, by_row, chi_squared, p, nemenyi_critical_difference(rows_, n, alpha))


def nemenyi_critical_difference(rows: int, seeds: int, alpha: float) -> float:
    """Difference of mean ranks beyond which two of `rows` differ.

    Q_alpha sqrt(k (k + 1) / 6N), q the studentised range over sqrt 2.
    """
    q = float(stats.studentized_range.ppf(1.0 - alpha, rows, np.inf)) / np.sqrt(2.0)
    return float(q * np.sqrt(rows * (rows + 1.0) / (6.0 * seeds)))
