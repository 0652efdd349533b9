"""Columns of routes against means over records, in bits."""

import math

import pytest

from bench.board.build import boards_of
from bench.pages.leaderboard import render_leaderboard
from bench.pages.routes import route_columns
from bench.record import OtherRoutes, Recall, Record
from tests.board.synthetic import records

RECALL = Recall(order=4, share=0.25, recalled=1.0, rest=2.0)
ROUTES = OtherRoutes(samples=8, own=2.0, sampled=2.5, regret=0.01, fragile=0.3, second=2.2)


def with_routes(record: Record, place: int) -> Record:
    routes = ROUTES.model_copy(update={"sampled": 2.5 + place})
    return record.model_copy(update={"recall": RECALL, "other_routes": routes})


def test_each_column_is_a_mean_over_seeds_in_bits() -> None:
    made = [r for r in records() if r.cell.row == "top2_moe"]
    board = boards_of([with_routes(record, place) for place, record in enumerate(made)])[0]
    cells = {column.title: column.cell(board.rows[0]) for column in route_columns(board)}
    bits = 1 / math.log(2)
    mean = sum(0.5 + place for place in range(len(made))) / len(made)
    assert cells["other routes"].text == f"+{mean * bits:.3f}"
    assert cells["recalled"].text == f"{bits:.3f}" and cells["rest"].text == f"{2 * bits:.3f}"
    assert cells["second choice"].text == f"+{0.2 * bits:.3f}"
    assert cells["fragile"].text == "30.0 %"
    assert cells["regret"].value == pytest.approx(0.01)
    assert "routes" in render_leaderboard([board], command="test")


def test_records_without_them_have_no_such_column() -> None:
    titles = {column.title for column in route_columns(boards_of(records())[0])}
    assert not titles & {"recalled", "rest", "other routes", "regret", "fragile", "second choice"}
