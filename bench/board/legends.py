"""Explain the marks, verdicts and columns of a table, directly below it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.board.columns import REAL, SMALL, Column, signed_word
from bench.board.model import Board, Row

ROLE_MARKS = {"control": "†", "twin": "‡", "informed": "§", "bracket": "¶"}
OUT, WAIVED = "○", "‖"

MARKS = {
    "†": "a control",
    "‡": "an A/A twin, a copy of a row with another router seed; the test must find no difference",
    "§": "has information or a budget of its own, not ranked",
    "¶": "a bracket, of another cost and as many training tokens, not ranked",
    OUT: "off budget, failed or incomplete, not ranked (the last sections say why)",
    WAIVED: "fails checks that were waived",
}
VERDICTS = {
    "better": "significantly lower loss",
    "worse": "significantly higher loss",
    "equivalent": "the difference is significantly smaller than the margin",
    "inconclusive": "none of these is shown",
    "untestable": "fewer than two common seeds, or too little power for a plausible difference",
    SMALL: "significant, but the measured difference is smaller than the margin",
    REAL: "within the margin, but significantly different from 0",
}


@dataclass(frozen=True)
class Legend:
    """One line of a legend: its subject, and (sign or title, meaning) pairs."""

    name: str
    entries: list[tuple[str, str]]


def mark(row: Row) -> str:
    """Return the signs after a row's name: its role, its status, and waived checks."""
    signs = (
        ROLE_MARKS.get(row.role, ""),
        OUT if row.status != "ok" else "",
        WAIVED if row.waived else "",
    )
    return "".join(f" {sign}" for sign in signs if sign)


def legends(
    board: Board, rows: Sequence[Row], columns: Sequence[Column], shown: Callable[[str], str] = str
) -> list[Legend]:
    """Return the legend of a table: the marks and verdicts that it uses, and all its columns.

    Args:
        board: the board of the table.
        rows: the rows of the table.
        columns: the columns of the table.
        shown: escapes foreign text.
    """
    marks = {sign for row in rows for sign in mark(row).split()}
    # Cells with a verdict have its colour, so a table without any has none to explain.
    judged = {row.name for row in rows for column in columns if column.cell(row).verdict}
    words = {
        part
        for (name, _), outcome in board.judgement.outcomes.items()
        for part in signed_word(board, outcome).split()
        if name in judged
    }
    # Columns that repeat for each control or threshold share one meaning.
    meanings: dict[str, dict[str, None]] = {}
    for column in columns:
        said = (column.title, column.meaning)
        title, meaning = map(shown, said) if column.foreign else said
        meanings.setdefault(meaning, {})[title] = None
    titles = [(", ".join(titles), meaning) for meaning, titles in meanings.items()]
    lines = [
        Legend("Marks", [(sign, said) for sign, said in MARKS.items() if sign in marks]),
        Legend("Verdicts", [(word, said) for word, said in VERDICTS.items() if word in words]),
        Legend("Columns", titles),
    ]
    return [line for line in lines if line.entries]
