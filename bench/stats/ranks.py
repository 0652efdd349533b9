"""Compute rank intervals, tiers, and the rank tests of Friedman and Nemenyi."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from bench.stats.paired import Floats

FRIEDMAN_MIN_SEEDS = 5
"""Smallest number of complete seeds for the chi-squared and F approximations."""


@dataclass(frozen=True)
class Rank:
    """Place of one row.

    Attributes:
        row: name of the row.
        mean: mean loss over all seeds of the board, nats per byte; for a row that lacks seeds, an
            estimate of it. It orders the rows and proves nothing.
        low: best possible rank: 1 + number of significantly better rows.
        high: worst possible rank: number of rows - number of significantly worse rows.
        tier: 1 for the best. A row opens a new tier if the first row of the tier before is
            significantly better.
    """

    row: str
    mean: float
    low: int
    high: int
    tier: int


@dataclass(frozen=True)
class Friedman:
    """Rank test of equal rows over complete seeds. It is supplementary; no verdict depends on it.

    Attributes:
        n: number of complete seeds.
        mean_ranks: row -> mean rank over seeds; 1 is best, ties share.
        chi_squared: Friedman's statistic, corrected for ties.
        p: p value by the F approximation of Iman and Davenport (1980), which is better at few seeds
            than chi-squared.
        critical_difference: critical difference of mean ranks, Nemenyi at level alpha (Demsar 2006,
            section 3.2.2).
    """

    n: int
    mean_ranks: dict[str, float]
    chi_squared: float
    p: float
    critical_difference: float


def rank_intervals(means: Mapping[str, float], better: set[tuple[str, str]]) -> tuple[Rank, ...]:
    """Return simultaneous rank intervals and tiers from all pairwise verdicts, best mean first.

    If no pair of `better` is wrong, every interval holds the true rank. So the intervals together
    have the coverage of the family of pairs (Al Mohamad, Goeman and van Zwet 2022, Biometrika 109).

    Args:
        means: row -> mean loss. A NaN mean gets a place at the end.
        better: (winner, loser) for each significant pair.
    """
    # Equal means are ordered by name, so that the same records give the same board.
    order = sorted(means, key=lambda row: (bool(np.isnan(means[row])), means[row], row))
    wins = dict.fromkeys(order, 0)
    losses = dict.fromkeys(order, 0)
    # Pairs of rows outside of the ranking, such as brackets, do not count.
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
    """Run Friedman's test on the seeds that every row has, `[row, seed]`.

    Rows without a loss are left out. Return None below 3 rows or `FRIEDMAN_MIN_SEEDS` seeds.
    """
    run = [not np.isnan(own).all() for own in values]
    rows, values = [row for row, there in zip(rows, run, strict=True) if there], values[run]
    complete = values[:, ~np.isnan(values).any(axis=0)]
    rows_, n = complete.shape
    if rows_ < 3 or n < FRIEDMAN_MIN_SEEDS or np.all(complete == complete[:1]):
        return None
    ranked = stats.rankdata(complete, axis=0)
    means = ranked.mean(axis=1)
    chi_squared = float(stats.friedmanchisquare(*complete).statistic)
    # The F statistic of Iman and Davenport; infinite if all seeds agree on the order.
    room = n * (rows_ - 1) - chi_squared
    statistic = (n - 1) * chi_squared / room if room > 0.0 else np.inf
    p = float(special.fdtrc(rows_ - 1, (rows_ - 1) * (n - 1), statistic))
    by_row = {row: float(mean) for row, mean in zip(rows, means, strict=True)}
    return Friedman(n, by_row, chi_squared, p, nemenyi_critical_difference(rows_, n, alpha))


def nemenyi_critical_difference(rows: int, seeds: int, alpha: float) -> float:
    """Return the difference of mean ranks beyond which two of `rows` differ.

    It is q_alpha sqrt(k (k + 1) / 6N), with q the studentised range over sqrt 2.
    """
    q = float(stats.studentized_range.ppf(1.0 - alpha, rows, np.inf)) / np.sqrt(2.0)
    return float(q * np.sqrt(rows * (rows + 1.0) / (6.0 * seeds)))
