"""Compare routing with the right paths, for boards of data that have them."""

from functools import partial
from statistics import fmean

from bench.board.columns import Column, TableCell
from bench.board.measures import above_best
from bench.board.model import Board, Row
from bench.board.text import BITS, MISSING, number, percent
from bench.record import Record

ORACLE = "planted_oracle"
"""Router that knows the right paths; the loss above its row is shown."""


def truth_columns(board: Board) -> list[Column]:
    """Return the columns of accuracy and of distances from the oracle and the best possible loss.

    There are none if no record has the truth.
    """
    if not any(record.truth for row in board.rows for record in row.records):
        return []
    oracle = next(
        (row for row in board.rows if row.first.row.router == ORACLE and row.losses), None
    )
    return [
        Column(
            "right paths",
            "share of tokens on their planted path in the first / second routed layer, and in "
            "brackets the share if no token is looked at (other choices may be as good)",
            _accuracy,
        ),
        Column(
            "above oracle",
            f"loss above the loss of {ORACLE} on the same seeds, bits per token",
            partial(_above_oracle, oracle=oracle),
        ),
        Column(
            "above best",
            "loss above the lowest possible loss at the budget, as a share of it",
            _above_best,
        ),
    ]


def _accuracy(row: Row) -> TableCell:
    """Return the share of right paths, site by site."""
    found, chance = (
        row.mean(lambda record: _mean(record, "accuracy")),
        row.mean(lambda record: _mean(record, "chance")),
    )
    if found is None:
        return TableCell(MISSING)
    # A record that failed has no truth.
    sites = max(len(record.truth.accuracy) for record in row.records if record.truth)
    each = [
        row.mean(lambda record, site=site: record.truth.accuracy[site] if record.truth else None)
        for site in range(sites)
    ]
    return TableCell(
        f"{' / '.join(percent(one).removesuffix(' %') for one in each)} % ({percent(chance)})",
        found,
    )


def _above_oracle(row: Row, oracle: Row | None) -> TableCell:
    """Return the loss above the row that knows the right paths."""
    # Paired over the seeds that both rows have: seeds differ more than routers do.
    common = sorted(row.losses.keys() & oracle.losses.keys()) if oracle else []
    if oracle is None or not common:
        return TableCell(MISSING)
    value = fmean(row.losses[seed] - oracle.losses[seed] for seed in common)
    return TableCell(number(BITS * value, signed=True), value)


def _above_best(row: Row) -> TableCell:
    """Return the loss above the least possible one."""
    value = row.mean(above_best)
    return TableCell(MISSING if value is None else percent(value), value)


def _mean(record: Record, name: str) -> float | None:
    known = (
        [value for value in getattr(record.truth, name) if value is not None]
        if record.truth
        else []
    )
    return fmean(known) if known else None
