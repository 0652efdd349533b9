"""Compare the training step of one row in several precisions, compiled and not.

    python benchmarks/step_times.py --backbone tiny --row dense --rounds 20

The steps alternate in one process. Prints the median time of a step, and the median over rounds of
its time divided by that of float32.
"""

import argparse
from collections.abc import Callable

import torch
from tabulate import tabulate

from bench.config.read_suite import load_suite
from bench.data import load_corpus
from bench.runner.cells import plan_cells
from bench.runner.numerics import fix_numerics
from bench.runner.resolve import resolve
from bench.runner.rows import parse_rows
from bench.speed.measure import median_ms
from bench.speed.subject import Subject
from bench.speed.timing import alternate, relative

LOW_MUON = "train.muon_dtype=bfloat16"
VARIANTS: dict[str, tuple[str, ...]] = {
    "float32": (),
    "float32, Muon in bfloat16": (LOW_MUON,),
    "bfloat16": ("dtype=bfloat16", LOW_MUON),
    "bfloat16, compiled": ("dtype=bfloat16", LOW_MUON, "compile=true"),
}


def step_of(backbone: str, row: str, assignments: tuple[str, ...]) -> Callable[[], object]:
    """Return the training step of a row of `quick` at another size and with other fields."""
    suite = load_suite("quick", {"backbone": backbone}, assignments)
    cells = plan_cells(suite, parse_rows(suite, row).rows, [0])
    return Subject(resolve(cells[0], load_corpus(suite.data.at(0)))).step


def main() -> None:
    """Time the variants and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="tiny")
    parser.add_argument("--row", default="dense")
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    fix_numerics("cpu")
    steps = {name: step_of(given.backbone, given.row, v) for name, v in VARIANTS.items()}
    seconds = alternate(steps, given.rounds, torch.device("cpu"))
    lines = [
        (name, median_ms(found), relative(found, seconds["float32"]))
        for name, found in seconds.items()
    ]
    print(tabulate(lines, ("step", "ms", "time / float32"), "github", floatfmt=("", ".1f", ".2f")))


if __name__ == "__main__":
    main()
