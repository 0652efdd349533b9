"""Columns: the values that they read from a row, against the records."""

import math

from bench.board.build import boards_of
from bench.board.columns import first_columns, part_of, verdict_columns
from bench.board.model import Row
from tests.board.synthetic import records

MADE = records()
BOARD = boards_of(MADE)[0]
ROWS = {row.name: row for row in BOARD.rows}


def test_the_first_table_names_the_controls_that_a_row_beats() -> None:
    (column,) = [one for one in first_columns(BOARD) if one.title == "verdict"]
    for row in (row for row in BOARD.ranked if row.role == "ranked"):
        beaten = [
            name
            for name, control in (
                ("random", row.first.cell.control),
                ("dense_matched", "dense_matched"),
            )
            if (one := BOARD.outcome(row, control))
            and (one.verdict, one.winner) == ("better", row.name)
        ]
        wanted = {0: "beats neither", 1: f"beats {beaten and beaten[0]}", 2: "beats both"}
        assert column.cell(row).text == wanted[len(beaten)], row.name
    assert column.cell(ROWS["mlp_gate@twin"]).text == "A/A twin"


def test_an_informed_row_is_named_for_its_information_or_its_budget() -> None:
    (informed,) = BOARD.informed
    assert part_of(informed) == "side information"
    audit = informed.first.budget
    assert audit is not None
    own = informed.first.model_copy(update={"budget": audit.model_copy(update={"own": 0.6})})
    assert part_of(Row("mod@12.5", (own,))) == "own budget"


def test_wins_count_seeds() -> None:
    wins = next(one for one in verdict_columns(BOARD) if one.title == "wins")
    losses = {(one.cell.row, one.cell.seed): one.loss or math.nan for one in MADE}
    count = sum(losses["hash", seed] < losses["random@ffn", seed] for seed in range(3))
    assert wins.cell(ROWS["hash"]).text == f"{count}/3"
    assert wins.cell(ROWS["random@ffn"]).value is None
