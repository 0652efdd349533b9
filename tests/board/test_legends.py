"""Legends: what a table uses is explained, and nothing else."""

from collections.abc import Sequence
from dataclasses import replace

from bench.board.build import boards_of
from bench.board.columns import Column, TableCell, first_columns, verdict_columns
from bench.board.legends import MARKS, VERDICTS, legends, mark
from bench.board.model import Board, Row
from bench.board.verdicts import word
from bench.record import CheckOutcome
from tests.board.synthetic import QUICK, record, records

BOARD = boards_of(records())[0]
ROWS = {row.name: row for row in BOARD.rows}


def entries(
    board: Board, rows: Sequence[Row], columns: Sequence[Column]
) -> dict[str, dict[str, str]]:
    return {one.name: dict(one.entries) for one in legends(board, rows, columns)}


def test_marks_are_those_of_the_rows() -> None:
    found = entries(BOARD, BOARD.rows, first_columns(BOARD))
    assert set(found["Marks"]) == {"†", "‡", "§", "¶"}
    alone = entries(BOARD, [ROWS["mod"]], first_columns(BOARD))
    assert "Marks" not in alone
    out = replace(ROWS["random@ffn"], status="off_budget")
    assert mark(out) == " † ○"
    assert set(entries(BOARD, [out], first_columns(BOARD))["Marks"]) == {"†", "○"}


def test_a_row_that_fails_a_waived_check_is_marked_beside_its_role() -> None:
    twin = next(kind for kind in QUICK if kind.role == "twin")
    for status, wanted in (("waived", " ‡ ‖"), ("passed", " ‡"), ("not_run", " ‡")):
        said = {"router": twin.row, "check": "learns", "status": status}
        found = (CheckOutcome.model_validate(said),)
        assert mark(Row(twin.row, (record(twin, 0), record(twin, 1, checks=found)))) == wanted
    assert "‖" in MARKS


def test_verdicts_are_those_of_the_shown_rows() -> None:
    found = entries(BOARD, BOARD.rows, verdict_columns(BOARD))["Verdicts"]
    words = {word(one) for one in BOARD.judgement.outcomes.values()}
    assert set(found) - {"≈", "≠"} == words and found.items() <= VERDICTS.items()
    one = BOARD.outcome(ROWS["mod"], "random@block")
    other = BOARD.outcome(ROWS["mod"], "dense_matched")
    assert one and other
    own = entries(BOARD, [ROWS["mod"], ROWS["dense"]], first_columns(BOARD))["Verdicts"]
    assert set(own) - {"≈", "≠"} == {word(one), word(other)}
    plain = [Column("x", "a number", lambda row: TableCell("1", 1.0))]
    assert "Verdicts" not in entries(BOARD, BOARD.rows, plain)


def test_columns_of_one_meaning_share_an_entry_and_foreign_text_is_escaped() -> None:
    columns = [
        Column("a", "same", lambda row: TableCell("1")),
        Column("b", "same", lambda row: TableCell("1")),
        Column("x*", "of x*", lambda row: TableCell("1"), foreign=True),
    ]
    (legend,) = legends(BOARD, [ROWS["mod"]], columns, lambda text: text.replace("*", "?"))
    assert legend.entries == [("a, b", "same"), ("x?", "of x?")]
