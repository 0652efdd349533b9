"""Check the planted task by the records of `planted-depth` and `planted-experts`.

Each seed is a task of its own.

    python benchmarks/planted.py results

For each suite: the distance of `planted_oracle` from `random` in standard deviations of the paired
difference, how far the dense model, the oracle, random choice and `cheap` stay above the best loss
that is possible, whether their order holds in every seed, and the accuracy of random choice next
to chance.
"""

import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import numpy as np
from scipy import stats
from tabulate import tabulate

from bench.record import Record, read_records

Records = dict[str, dict[int, Record]]
SUITES = {
    "planted-depth": ("dense", "random@ffn"),
    "planted-experts": ("dense_parameters", "random@experts-1"),
}
"""Suite -> its dense model of as many parameters, and random choice over the paths of
`planted_oracle`.
"""
LEVEL = 0.95


def losses(records: dict[int, Record]) -> np.ndarray:
    """Headline losses in order of seed, nats a token."""
    return np.array([record.loss for _, record in sorted(records.items())], float)


def paired(name: str, difference: np.ndarray) -> tuple[object, ...]:
    """Mean, SD, distance in SDs, interval of the mean, and the seeds above 0."""
    mean, sd, n = float(difference.mean()), float(difference.std(ddof=1)), len(difference)
    half = float(stats.t.ppf(0.5 + LEVEL / 2, n - 1)) * sd / n**0.5
    return (
        name,
        mean,
        sd,
        mean / sd,
        f"[{mean - half:+.4f}, {mean + half:+.4f}]",
        f"{int((difference > 0).sum())}/{n}",
    )


def above_best(records: dict[int, Record]) -> tuple[float, float]:
    """Mean and largest distance above the best possible loss, per cent of it."""
    found = [
        100 * (record.loss / record.truth.best_loss - 1)
        for record in records.values()
        if record.loss and record.truth
    ]
    return fmean(found), max(found)


def site_mean(record: Record, name: str) -> float:
    """Mean over the routed sites of a figure of `Record.truth`."""
    return fmean(value for value in getattr(record.truth, name) if value is not None)


def show(suite: str, found: Records) -> None:
    """Print the tables of one suite."""
    dense, random = SUITES[suite]
    rows = (dense, "planted_oracle", random, "cheap")
    seeds = sorted(set.intersection(*(set(found[row]) for row in rows)))
    chosen = {row: {seed: found[row][seed] for seed in seeds} for row in rows}
    tasks = {record.provenance.data_hash for record in chosen["planted_oracle"].values()}
    print(f"{suite}, {len(seeds)} seeds, {len(tasks)} tasks\n")
    table = [
        (row, losses(chosen[row]).mean(), losses(chosen[row]).std(ddof=1), *above_best(chosen[row]))
        for row in rows
    ]
    headers = ["row", "loss", "SD", "above best, %", "at most, %"]
    print(
        tabulate(
            table, headers=headers, tablefmt="github", floatfmt=("", ".4f", ".4f", ".1f", ".1f")
        ),
        end="\n\n",
    )
    pairs = ((random, "planted_oracle"), ("cheap", random), ("planted_oracle", dense))
    differences = [
        paired(f"{one} - {other}", losses(chosen[one]) - losses(chosen[other]))
        for one, other in pairs
    ]
    headers = ["difference", "mean", "SD", "mean / SD", "95 % interval", "above 0"]
    print(
        tabulate(
            differences, headers=headers, tablefmt="github", floatfmt=("", "+.4f", ".4f", ".1f")
        ),
        end="\n\n",
    )
    right, chance = (
        [site_mean(record, name) for record in chosen[random].values()]
        for name in ("accuracy", "chance")
    )
    print(
        f"right paths of {random}: {fmean(right):.4f} (by chance {fmean(chance):.4f}, largest "
        "distance of a seed ",
        end="",
    )
    print(f"{max(abs(a - b) for a, b in zip(right, chance, strict=True)):.4f})\n")


def main(root: Path) -> None:
    """Print the tables of both suites, as far as they were run."""
    for suite in SUITES:
        found: Records = defaultdict(dict)
        for _, record in read_records(root / suite):
            found[record.cell.row][record.cell.seed] = record
        if found:
            show(suite, found)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "results"))
