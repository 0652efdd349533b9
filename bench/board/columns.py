"""Define the columns of a board, once for Markdown and HTML.

A column reads one row and returns text and a number for sorting.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.board import measures
from bench.board.model import Board, Row
from bench.board.text import BITS, MISSING, interval, number, probability, quantity
from bench.board.verdicts import word
from bench.record import Record
from bench.stats import Outcome


@dataclass(frozen=True)
class TableCell:
    """The content of one table cell.

    Attributes:
        text: the shown text.
        value: number for sorting; None sorts last.
        foreign: the text comes from a plugin and must be escaped.
        link: address behind the text.
        verdict: verdict in the text, for its colour.
    """

    text: str
    value: float | int | None = None
    foreign: bool = False
    link: str | None = None
    verdict: str = ""


@dataclass(frozen=True)
class Column:
    """A column: its heading, the meaning of the heading, and a reader of rows."""

    title: str
    meaning: str
    cell: Callable[[Row], TableCell]
    numeric: bool = True
    foreign: bool = False


def first_columns(board: Board) -> list[Column]:
    """Return the columns of the first table, which fits a screen, without intervals."""
    matched = board.matched_control

    def loss(row: Row) -> TableCell:
        return TableCell(number(row.shown_loss and BITS * row.shown_loss), row.shown_loss)

    # The first table has the verdict with its number; intervals and p values are in the second.
    def against(control: Callable[[Row], str | None]) -> Callable[[Row], TableCell]:
        def cell(row: Row) -> TableCell:
            if (outcome := board.outcome(row, control(row))) is None:
                return TableCell(MISSING)
            said = f"{number(BITS * outcome.difference, signed=True)} {word(outcome)}"
            return TableCell(said, outcome.difference, verdict=word(outcome))

        return cell

    return [
        family_column(),
        Column("bits per byte", "headline loss, mean over seeds", loss),
        Column(
            "against random",
            "difference to random choice on the same paths, bits per byte, and its verdict",
            against(lambda row: row.control),
        ),
        Column(
            f"against {matched}",
            "difference to the unrouted model that costs the budget, and its verdict",
            against(lambda row: matched),
            foreign=True,
        ),
        Column("verdict", "which of the two controls the row beats", _beaten(board), False, True),
        Column(
            "parameters", "in all", mean_of(measures.from_training("parameters_total"), quantity)
        ),
        speed_column(board),
    ]


_PARTS = {
    "control": "control",
    "twin": "A/A twin",
    "bracket": "bracket",
    "informed": "side information",
}


def part_of(row: Row) -> str:
    """Return the part that a row plays beside the ranking; a dash for a ranked row."""
    if row.role == "informed" and any(r.budget and r.budget.own for r in row.records):
        return "own budget"
    return _PARTS.get(row.role, MISSING)


def _beaten(board: Board) -> Callable[[Row], TableCell]:
    """Return a reader for the controls that a row beats."""

    def cell(row: Row) -> TableCell:
        # A row may have one control or both; a control itself may have none.
        controls = {"random": row.control, board.matched_control: board.matched_control}
        found = {name: board.outcome(row, control) for name, control in controls.items()}
        judged = {name: word(outcome) for name, outcome in found.items() if outcome}
        beaten = [name for name, verdict in judged.items() if verdict == "better"]
        if not judged:
            return TableCell(part_of(row))
        # A verdict over one control must not read as a verdict over both.
        if len(beaten) == len(judged) > 1:
            return TableCell("beats both", verdict="better")
        if not beaten:
            return TableCell(
                "beats neither" if len(judged) > 1 else f"no win over {next(iter(judged))}"
            )
        return TableCell(f"beats {beaten[0]}", verdict="better" if len(judged) == 1 else "")

    return cell


def family_column() -> Column:
    """Return the column of a router's family."""
    return Column(
        "family", "of routers", lambda row: TableCell(row.first.cell.family, foreign=True), False
    )


def speed_column(board: Board) -> Column:
    """Return the column of training speed against the dense bracket."""

    def speed(row: Row) -> TableCell:
        ratio = measures.relative_throughput(row, board.dense)
        return TableCell(MISSING if ratio is None else f"{number(ratio, 2)}×", ratio)

    return Column("speed", "training tokens a second, as a multiple of the dense bracket's", speed)


def verdict_columns(board: Board) -> list[Column]:
    """Return the columns for mean loss and for the comparisons with both controls."""

    def loss(row: Row) -> TableCell:
        if row.shown_loss is None:
            return TableCell(MISSING)
        # This interval is of the mean alone: rows are compared in pairs, by the next columns.
        low, high = measures.mean_interval(list(row.losses.values()))
        return TableCell(
            f"{number(BITS * row.shown_loss)} {interval(BITS * low, BITS * high)}".strip(),
            row.shown_loss,
        )

    matched = board.matched_control
    return [
        Column("bits per byte", "headline loss, mean over seeds [95 % t interval]", loss),
        *_comparison(board, "random", "random choice on the same paths", lambda row: row.control),
        *_comparison(
            board,
            matched,
            "the unrouted model that costs the budget",
            lambda row: matched,
            foreign=True,
        ),
    ]


def _comparison(
    board: Board, title: str, what: str, control: Callable[[Row], str | None], foreign: bool = False
) -> list[Column]:
    def found(row: Row) -> Outcome | None:
        return board.outcome(row, control(row))

    def difference(row: Row) -> TableCell:
        if (outcome := found(row)) is None:
            return TableCell(MISSING)
        low, high = outcome.interval
        limits = interval(BITS * low, BITS * high, signed=True)
        return TableCell(
            f"{number(BITS * outcome.difference, signed=True)} {limits}".strip(), outcome.difference
        )

    def verdict(row: Row) -> TableCell:
        return (
            TableCell(MISSING)
            if (outcome := found(row)) is None
            else TableCell(verdict_text(outcome), outcome.p_adjusted, verdict=word(outcome))
        )

    def won(row: Row) -> TableCell:
        # Both need the losses of the same seeds, so a control that is not ranked has no wins.
        opponent = next((other for other in board.ranked if other.name == control(row)), None)
        if opponent is None or found(row) is None:
            return TableCell(MISSING)
        count, of = measures.wins(row, opponent)
        return TableCell(f"{count}/{of}", count)

    return [
        Column(
            f"to {title}",
            f"difference to {what}, bits per byte [simultaneous interval]",
            difference,
            foreign=foreign,
        ),
        Column(
            "verdict (p)",
            f"against {what}; p corrected over the declared family",
            verdict,
            numeric=False,
        ),
        Column("wins", f"seeds in which the row beats {what}", won),
    ]


def verdict_text(outcome: Outcome) -> str:
    """Return the verdict from the row's side with its corrected p value."""
    # The p value belongs to the verdict: of equivalence, or of a difference.
    p = probability(
        outcome.p_equivalence_adjusted if outcome.verdict == "equivalent" else outcome.p_adjusted
    )
    return word(outcome) if p == MISSING else f"{word(outcome)} ({p})"


def with_values(columns: Sequence[Column], rows: Sequence[Row]) -> list[Column]:
    """Return the columns that some row has a value in; the others would be columns of dashes."""
    return [c for c in columns if any(c.cell(row).value is not None for row in rows)]


def mean_of(
    read: Callable[[Record], float | None], show: Callable[[float | None], str]
) -> Callable[[Row], TableCell]:
    """Return a reader for the mean of a number over a row's records, and how it is shown."""

    def cell(row: Row) -> TableCell:
        value = row.mean(read)
        return TableCell(show(value), value)

    return cell
