"""Show how much the choice of a path matters: other routes, repeated tokens, use of experts."""

from collections.abc import Callable

from bench.board.columns import Column, mean_of, with_values
from bench.board.measures import field_of
from bench.board.model import Board
from bench.board.text import BITS, number, percent
from bench.pages.monitors import monitor_columns
from bench.record import Record

EXPERTS = ("MaxVio", "purity", "co-activation")
"""Monitors of experts to show with the losses; the report has all of them."""

Read = Callable[[Record], float | None]


def route_columns(board: Board) -> list[Column]:
    """Return the columns of repeated tokens, other routes and use of experts that some row has."""
    columns = [
        _bits(
            "recalled",
            "loss of tokens that end an n-gram seen earlier in the window",
            field_of("recall", "recalled"),
        ),
        _bits("rest", "loss of the other tokens", field_of("recall", "rest")),
        _bits(
            "other routes",
            "mean loss if tokens of a sequence exchange their plans, at equal cost, minus the "
            "own loss",
            _above_own("sampled"),
            signed=True,
        ),
        _bits(
            "regret",
            "own loss minus the loss of the best of eight such exchanges per sequence",
            field_of("other_routes", "regret"),
        ),
        Column(
            "fragile",
            "share of tokens whose loss rises by over 0.1 nats in half of these exchanges",
            mean_of(field_of("other_routes", "fragile"), percent),
        ),
        _bits(
            "second choice",
            "loss if each token's best expert is replaced by the best one not chosen, minus the "
            "own loss",
            _above_own("second"),
            signed=True,
        ),
    ]
    experts = [column for column in monitor_columns(board) if column.title in EXPERTS]
    return with_values(columns, board.rows) + experts


def _bits(title: str, meaning: str, read: Read, signed: bool = False) -> Column:
    def show(nats: float | None) -> str:
        return number(None if nats is None else BITS * nats, signed=signed)

    return Column(title, f"{meaning}, bits per token", mean_of(read, show))


def _above_own(field: str) -> Read:
    """Return a reader of the loss of other routes above the own loss."""
    other, own = field_of("other_routes", field), field_of("other_routes", "own")

    def read(record: Record) -> float | None:
        loss, least = other(record), own(record)
        return None if loss is None or least is None else loss - least

    return read
