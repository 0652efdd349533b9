"""Columns of the right paths: there where records have them, against figures worked out by hand."""

import math

from bench.board.build import boards_of
from bench.board.pages import render_leaderboard
from bench.board.truth import truth_columns
from bench.record import Record, RightPaths
from tests.board.synthetic import Kind, record, records

TITLE = "quick: right paths"


def planted(
    row: str, role: str, losses: list[float], accuracy: tuple[float | None, ...]
) -> list[Record]:
    """Records of a row whose loss and accuracy are given."""
    kind = Kind(row, 1.0, role, paths=("cheap", "full"))  # type: ignore[arg-type]
    truth = RightPaths(
        accuracy=accuracy,
        chance=tuple(None if one is None else 0.5 for one in accuracy),
        best_loss=0.8,
    )
    return [
        record(kind, seed).model_copy(update={"loss": loss, "truth": truth})
        for seed, loss in enumerate(losses)
    ]


def test_accuracy_and_distances_from_the_oracle_and_the_best_loss() -> None:
    made = [
        *planted("planted_oracle", "informed", [0.9, 0.8], (1.0, 0.9)),
        *planted("mlp_gate", "ranked", [1.0, 1.1], (0.8, 0.6)),
        *planted("dense_matched", "control", [1.2, 1.2], (None, None)),
    ]
    (board,) = boards_of(made)
    columns = {column.title: column for column in truth_columns(board)}
    rows = {row.name: row for row in board.rows}
    gate = {title: column.cell(rows["mlp_gate"]) for title, column in columns.items()}
    assert gate["right paths"].text == "80.0 / 60.0 % (50.0 %)"
    assert math.isclose(gate["above oracle"].value or 0, 0.2)
    assert gate["above oracle"].text == f"+{0.2 / math.log(2):.3f}"
    assert math.isclose(gate["above best"].value or 0, 1.05 / 0.8 - 1)
    assert columns["above oracle"].cell(rows["planted_oracle"]).value == 0
    assert columns["right paths"].cell(rows["dense_matched"]).value is None
    assert TITLE in render_leaderboard([board], command="test")


def test_other_boards_do_not_change() -> None:
    (board,) = boards_of(records())
    assert truth_columns(board) == []
    assert TITLE not in render_leaderboard([board], command="test")
