"""Compare the effect that a suite can find with the noise of a paired difference.

    python benchmarks/resolution.py results/quick

Prints the gap between the brackets `dense` and `cheap`, and for each ranked row the SD over seeds
of its difference to its `random` control and to `dense_matched`, with the upper 90 % bound of that
SD (chi-squared, n - 1 degrees of freedom).
"""

import sys
from pathlib import Path

import numpy as np
from scipy import stats
from tabulate import tabulate

from bench.board.rows import group_rows
from bench.record import read_records


def upper_bound(sd: float, n: int, confidence: float = 0.9) -> float:
    """Upper bound of a standard deviation estimated from n normal values."""
    return sd * float(np.sqrt((n - 1) / stats.chi2.ppf(1 - confidence, n - 1)))


def main(folder: Path) -> None:
    """Print the table and the two ratios that matter."""
    # the learning-rate variants have seeds of their own
    rows = [r for r in group_rows(r for _, r in read_records(folder)) if "@lr" not in r.name]
    losses = {row.name: row.losses for row in rows}
    controls = {row.name: row.first.cell.control for row in rows if row.first.cell.control}
    seeds = sorted(set.intersection(*(set(found) for found in losses.values())))
    n = len(seeds)

    def column(row: str) -> np.ndarray:
        return np.array([losses[row][seed] for seed in seeds])

    gap = column("cheap") - column("dense")
    table: list[tuple[object, ...]] = []
    for row, control in controls.items():
        for other in (control, "dense_matched"):
            difference = column(row) - column(other)
            sd = float(difference.std(ddof=1))
            table.append((row, other, difference.mean(), sd, upper_bound(sd, n), gap.mean() / sd))
    print(
        f"{n} seeds: {seeds}. cheap - dense: {gap.mean():.4f} nats a byte, "
        f"SD {gap.std(ddof=1):.4f}.\n"
    )
    headers = ("row", "minus", "mean", "SD", "upper 90 %", "gap / SD")
    print(
        tabulate(
            sorted(table),
            headers=headers,
            tablefmt="github",
            floatfmt=("", "", "+.4f", ".4f", ".4f", ".1f"),
        )
    )
    pooled = float(np.sqrt(np.mean([float(str(line[3])) ** 2 for line in table])))
    worst = max(float(str(line[4])) for line in table)
    print(
        f"\npooled SD {pooled:.4f}; gap / pooled SD {gap.mean() / pooled:.1f}; largest upper "
        f"bound {worst:.4f}"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "results/quick"))
