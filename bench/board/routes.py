"""Show how much the choice of a path matters: other routes, repeated tokens, use of experts."""

from collections.abc import Callable

from bench.board.columns import Column, TableCell
from bench.board.model import Board, Row
from bench.board.monitors import monitor_columns
from bench.board.text import BITS, number, percent
from bench.record import OtherRoutes, Record

EXPERTS = ("MaxVio", "purity", "co-activation")
"""Monitors of experts that stand beside the losses; the report has all of them."""

Read = Callable[[Record], float | None]


def route_columns(board: Board) -> list[Column]:
    """Return the columns of repeated tokens, other routes and use of experts that some row has."""
    columns = [
        _bits("recalled", "loss of tokens that end an n-gram seen earlier", _recalled),
        _bits("rest", "loss of the other tokens", _rest),
        _bits(
            "other routes",
            "mean loss of sampled routes of equal cost, minus the own",
            _above("sampled"),
            signed=True,
        ),
        _bits("regret", "own loss minus the best sampled route's, by sequence", _regret),
        Column(
            "fragile",
            "tokens whose loss half of the sampled routes raise by over 0.1 nats",
            lambda row: _share(row.mean(_fragile)),
        ),
        _bits(
            "second choice",
            "loss with each token's best expert replaced, minus the own",
            _above("second"),
            signed=True,
        ),
    ]
    shown = [
        column
        for column in columns
        if any(column.cell(row).value is not None for row in board.rows)
    ]
    return shown + [column for column in monitor_columns(board) if column.title in EXPERTS]


def _bits(title: str, meaning: str, read: Read, signed: bool = False) -> Column:
    def cell(row: Row) -> TableCell:
        value = row.mean(read)
        bits = None if value is None else BITS * value
        return TableCell(number(bits, signed=signed), value)

    return Column(title, f"{meaning}, bits per token", cell)


def _share(value: float | None) -> TableCell:
    return TableCell(percent(value) if value is not None else number(None), value)


def _recalled(record: Record) -> float | None:
    return record.recall.recalled if record.recall else None


def _rest(record: Record) -> float | None:
    return record.recall.rest if record.recall else None


def _regret(record: Record) -> float | None:
    return record.other_routes.regret if record.other_routes else None


def _fragile(record: Record) -> float | None:
    return record.other_routes.fragile if record.other_routes else None


def _above(field: str) -> Read:
    """Return a reader of the loss of other routes above the own loss."""

    def read(record: Record) -> float | None:
        routes: OtherRoutes | None = record.other_routes
        loss: float | None = getattr(routes, field) if routes else None
        return None if routes is None or loss is None else loss - routes.own

    return read
