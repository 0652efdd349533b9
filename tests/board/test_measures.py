"""Derived figures against naive references and closed forms."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bench.board import measures
from bench.board.build import boards_of
from bench.record import CurvePoint
from tests.board.synthetic import records

FINITE = st.floats(-1e3, 1e3)


def point(flops: float, loss: float) -> CurvePoint:
    return CurvePoint(
        step=0, tokens=int(flops), flops=flops, seconds=flops, train_loss=loss, loss=loss
    )


@given(st.lists(st.tuples(FINITE, FINITE), min_size=1, max_size=30))
def test_frontier_is_what_no_other_point_beats(points: list[tuple[float, float]]):
    def beaten(one: tuple[float, float]) -> bool:
        return any(other != one and other[0] <= one[0] and other[1] <= one[1] for other in points)

    assert measures.frontier(points) == sorted({one for one in points if not beaten(one)})


@given(st.lists(FINITE.map(lambda value: round(value, 6)), min_size=2, max_size=20, unique=True))
def test_mean_interval_is_scipys(values: list[float]):
    expected = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    assert measures.mean_interval(values) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_one_value_has_no_interval():
    assert all(math.isnan(end) for end in measures.mean_interval([1.0]))


@given(st.floats(0.01, 0.99))
def test_cost_to_reach_on_a_straight_line(share: float):
    line = [point(flops, 3 - flops / 100) for flops in (0.0, 30.0, 70.0, 100.0)]
    assert measures.cost_to_reach(line, 3 - share) == pytest.approx(100 * share)


def test_cost_to_reach_takes_the_first_crossing_and_skips_what_is_no_number():
    curve = [point(0, 4), point(10, 2), point(20, math.nan), point(30, 3), point(40, 1)]
    assert measures.cost_to_reach(curve, 3) == 5
    assert measures.cost_to_reach(curve, 0.5) is None
    assert measures.cost_to_reach([], 1) is None
    assert measures.cost_to_reach([point(7, 1)], 2) == 7


def test_costs_within_the_tolerance_count_as_equal():
    points = [(100.0, 3.0), (100.5, 2.0), (50.0, 4.0), (200.0, 1.99), (99.9, 3.5)]
    assert measures.frontier(points, same=0.01) == [(50.0, 4.0), (100.5, 2.0), (200.0, 1.99)]


@pytest.mark.parametrize(
    ("text", "value"), [("0.5", 0.5), ("1e-3", 1e-3), ("0", None), ("x", None)]
)
def test_positive_reads_factors(text: str, value: float | None):
    assert measures.positive(text) == value


def test_wins_thresholds_and_throughput_are_read_from_the_records():
    made = records()
    board = boards_of(made)[0]
    rows = {row.name: row for row in (*board.ranked, *board.brackets)}
    by_cell = {(one.cell.row, one.cell.seed): one for one in made}
    expected = sum(
        (by_cell["hash", s].loss or 0) < (by_cell["dense_matched", s].loss or 0) for s in range(3)
    )
    assert measures.wins(rows["hash"], rows["dense_matched"]) == (expected, 3)
    assert measures.thresholds(board) == (2.4, 2.2)
    speeds = {
        name: np.mean([t.tokens_per_second for s in range(3) if (t := by_cell[name, s].training)])
        for name in ("hash", "dense")
    }
    assert measures.relative_throughput(rows["hash"], board.dense) == pytest.approx(
        speeds["hash"] / speeds["dense"]
    )
    assert measures.relative_throughput(rows["hash"], None) is None
