"""Simulate boards whose intervals end at 0 where the test of a verdict excludes 0.

    python benchmarks/cut_intervals.py [boards]

How often are all intervals and all signs of a board right together? docs/decisions, statistics, has
the figures.
"""

import sys

import numpy as np
from null_boards import ALPHA, REGIMES, Noise, batches, design, show

from bench.stats.families import compare_family
from bench.stats.moderation import fit_prior, row_variances


def cut_coverage(
    noise: Noise, boards: int, rows: int, seeds: int, differ: float = 0.5
) -> tuple[float, float]:
    """Return the share of boards without a false interval or sign, and that with a cut interval.

    A share `differ` of the routers is 1 to 5 SDs away from the controls. Intervals are those of a
    primary family, ended at 0 where the rule finds a difference.
    """
    pairs, shift = design(rows)["primary"], np.zeros(rows)
    count = round(differ * (rows - 2))
    shift[2 : 2 + count] = np.linspace(1.0, 5.0, count) * np.sqrt(2.0)
    true, right, cut = shift[pairs[:, 0]] - shift[pairs[:, 1]], 0, 0
    for values in batches(noise, boards, rows, seeds, 0):
        values += shift[:, None]
        tests = compare_family(values, pairs, fit_prior(*row_variances(values)))
        mean, half = tests.plain.mean, tests.half_width(ALPHA)
        found = tests.p_difference <= ALPHA
        # A difference that is found must have the true sign; 0 has none.
        signed = ~found | (np.sign(mean) == np.sign(true))
        right += int(((np.abs(mean - true) <= half) & signed).all(-1).sum())
        cut += int((found & (np.abs(mean) <= half)).any(-1).sum())
    return right / boards, cut / boards


def main(boards: int, rows: int = 13) -> None:
    noises = ("normal", "unequal variances", "one loud router", "2 clusters")
    body = (
        (f"{name}, n = {n}, {share:.0%}", cut_coverage(REGIMES[name], boards, rows, n, share))
        for name in noises
        for n in (3, 5, 10)
        for share in (0.25, 0.5, 0.75)
    )
    columns = ("noise, share that differs", "intervals and signs right", "an interval is cut")
    show("Boards whose intervals end at 0 where the rule finds a difference, %", columns, body)


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 1000)
