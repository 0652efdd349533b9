"""Define the columns of a board, once for Markdown and HTML.

A column reads one row and returns text and a number for sorting.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.board import measures
from bench.board.model import Board, Row, comparison
from bench.board.text import BITS, MISSING, interval, number, probability, quantity
from bench.board.verdicts import word
from bench.record import Record
from bench.stats import Outcome

SMALL, REAL = "≈", "≠"
"""Signs of a significant difference whose mean lies within the margin, and of an equivalent one."""


@dataclass(frozen=True)
class TableCell:
    """The content of one table cell.

    Attributes:
        text: the shown text.
        value: number for sorting; None sorts last.
        foreign: the text comes from a plugin and must be escaped.
        name: the text is the name of a row.
        link: address behind the text.
        verdict: verdict in the text, for its colour.
    """

    text: str
    value: float | int | None = None
    foreign: bool = False
    name: bool = False
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
            said = f"{number(BITS * outcome.difference, signed=True)} {signed_word(board, outcome)}"
            return TableCell(said, outcome.difference, verdict=word(outcome))

        return cell

    def chance(row: Row) -> TableCell:
        if row.control is None or board.outcome(row, row.control) is None:
            return TableCell(MISSING)
        return TableCell(row.control, name=True)

    return [
        family_column(),
        Column("bits per byte", "mean loss over seeds, lower is better", loss),
        Column("random control", "the row that chooses at random on the same paths", chance, False),
        Column(
            "against it",
            "difference to the random control on the same seeds, bits per byte, negative is better",
            against(lambda row: row.control),
        ),
        Column(
            f"against {matched}",
            f"the same against {matched}, the unrouted model of the same cost",
            against(lambda row: matched),
            foreign=True,
        ),
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


def signed_word(board: Board, outcome: Outcome) -> str:
    """Return the verdict from the row's side, with the sign for a case that surprises.

    A real difference may be measured smaller than the margin, and be real though it is equivalent.
    """
    # A test against 0 knows no margin, so a small difference may be significant.
    small = abs(outcome.difference) <= float(comparison(board.config)["margin"])
    if outcome.verdict == "better" and small:
        return f"{word(outcome)} {SMALL}"
    if outcome.verdict == "equivalent" and outcome.winner is not None:
        return f"{word(outcome)} {REAL}"
    return word(outcome)


def family_column() -> Column:
    """Return the column of a router's family."""
    return Column(
        "family",
        "kind of router",
        lambda row: TableCell(row.first.cell.family, foreign=True),
        False,
    )


def speed_column(board: Board) -> Column:
    """Return the column of training speed against the dense bracket."""

    def speed(row: Row) -> TableCell:
        ratio = measures.relative_throughput(row, board.dense)
        return TableCell(MISSING if ratio is None else f"{number(ratio, 2)}×", ratio)

    dense = board.dense.name if board.dense else "dense"
    meaning = f"training tokens per second, as a multiple of {dense}'s"
    return Column("speed", meaning, speed, foreign=True)


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
        Column("bits per byte", "mean loss over seeds, with the 95 % t interval of the mean", loss),
        *_comparison(
            board,
            "random",
            "difference to the random control on the same seeds, bits per byte, negative is "
            "better, with an interval (all intervals to controls hold together; a round bracket "
            "excludes its end, where the test is finer than the interval)",
            lambda row: row.control,
        ),
        *_comparison(
            board,
            matched,
            f"the same to {matched}, the unrouted model of the same cost",
            lambda row: matched,
            foreign=True,
        ),
    ]


def _comparison(
    board: Board,
    title: str,
    meaning: str,
    control: Callable[[Row], str | None],
    foreign: bool = False,
) -> list[Column]:
    def found(row: Row) -> Outcome | None:
        return board.outcome(row, control(row))

    def difference(row: Row) -> TableCell:
        if (outcome := found(row)) is None:
            return TableCell(MISSING)
        (low, high), uncut = outcome.interval, outcome.single_step
        ends = (low == uncut[0], high == uncut[1])
        limits = interval(BITS * low, BITS * high, signed=True, closed=ends)
        return TableCell(
            f"{number(BITS * outcome.difference, signed=True)} {limits}".strip(), outcome.difference
        )

    def verdict(row: Row) -> TableCell:
        return (
            TableCell(MISSING)
            if (outcome := found(row)) is None
            else TableCell(verdict_text(board, outcome), outcome.p_adjusted, verdict=word(outcome))
        )

    def won(row: Row) -> TableCell:
        # Both need the losses of the same seeds, so a control that is not ranked has no wins.
        opponent = next((other for other in board.ranked if other.name == control(row)), None)
        if opponent is None or found(row) is None:
            return TableCell(MISSING)
        count, of = measures.wins(row, opponent)
        return TableCell(f"{count}/{of}", count)

    return [
        Column(f"to {title}", meaning, difference, foreign=foreign),
        Column(
            "verdict (p)",
            f"p is adjusted for all {_family_size(board)} declared comparisons with controls and "
            f"for the looks, and a difference with p up to {_alpha(board)} is significant",
            verdict,
            numeric=False,
        ),
        Column("wins", "seeds in which the row has the lower loss, of the common seeds", won),
    ]


def _family_size(board: Board) -> int:
    plan = board.judgement.plan
    return len(plan.family("primary")) if plan else 0


def _alpha(board: Board) -> str:
    return f"{float(comparison(board.config)['alpha']):g}"


def verdict_text(board: Board, outcome: Outcome) -> str:
    """Return the verdict from the row's side with its adjusted p value."""
    # The p value belongs to the verdict: of equivalence, or of a difference.
    p = probability(
        outcome.p_equivalence_adjusted if outcome.verdict == "equivalent" else outcome.p_adjusted
    )
    said = signed_word(board, outcome)
    return said if p == MISSING else f"{said} ({p})"


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
