"""Arrange losses by row and seed in one matrix, with a reason for every missing cell."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.errors import UserError
from bench.stats.comparisons import Plan
from bench.stats.paired import Floats

Losses = Mapping[str, Mapping[int, float]]
"""Row -> seed -> headline loss, nats per byte. A failed cell is NaN or infinite."""


@dataclass(frozen=True)
class Aligned:
    """Losses of the planned rows at the seeds of the look.

    Attributes:
        rows: names, in the order of the plan.
        seeds: seeds of the look, ascending.
        values: `[row, seed]`, NaN without a usable loss.
        reasons: (row, seed) -> reason why the cell is not used.
        look: index of the reached look; -1 before the first, 0 if none is declared.
        late: seeds beyond the look, left out for every row.
        failed: rows with a cell that ran without a finite loss.
    """

    rows: tuple[str, ...]
    seeds: tuple[int, ...]
    values: Floats
    reasons: dict[tuple[str, int], str]
    look: int
    late: tuple[int, ...]
    failed: frozenset[str]


def align(losses: Losses, plan: Plan) -> Aligned:
    """Arrange losses as `[row, seed]` and cut them at the last look that was reached.

    Raises:
        UserError: no planned row has any seed.
    """
    rows = plan.rows
    seeds = sorted({seed for row in rows for seed in losses.get(row, {})})
    if not seeds:
        raise UserError(
            f"None of the planned rows {', '.join(rows) or '(none)'} has a loss. Run some cells "
            "first."
        )
    # Seeds beyond the reached look must not count, or looks would be chosen by their results.
    look, used = _cut(len(seeds), plan.looks)
    kept, late = at_look(seeds, plan.looks), tuple(seeds[used:])
    values = np.full((len(rows), len(kept)), np.nan)
    reasons: dict[tuple[str, int], str] = {}
    failed: set[str] = set()
    for i, row in enumerate(rows):
        own = losses.get(row, {})
        for j, seed in enumerate(kept):
            loss = own.get(seed)
            # A cell that did not run and a cell that failed are different: only one is a result.
            if loss is None:
                reasons[row, seed] = "not run"
            elif not math.isfinite(loss):
                reasons[row, seed] = f"loss is {loss}"
                failed.add(row)
            else:
                values[i, j] = loss
    return Aligned(rows, kept, values, reasons, look, late, frozenset(failed))


def at_look(seeds: Iterable[int], looks: Sequence[int]) -> tuple[int, ...]:
    """Return the seeds of the last look that was reached, ascending; all before the first."""
    ordered = sorted(seeds)
    return tuple(ordered[: _cut(len(ordered), looks)[1]])


def _cut(available: int, looks: Sequence[int]) -> tuple[int, int]:
    """Return the index of the last reached look and its number of seeds."""
    if not looks:
        return 0, available
    # Between two looks the board stays at the earlier one.
    reached = [index for index, look in enumerate(looks) if look <= available]
    return (reached[-1], looks[reached[-1]]) if reached else (-1, available)
