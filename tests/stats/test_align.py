import math

import numpy as np
import pytest

from bench.stats.align import align
from bench.stats.comparisons import Comparison, Plan

PLAN = Plan((Comparison("a", "b"), Comparison("c", "b")), margin=0.1)


def test_rows_follow_the_plan_and_seeds_ascend() -> None:
    board = align({"b": {5: 1.0, 2: 2.0}, "a": {2: 3.0}, "unplanned": {9: 1.0}}, PLAN)
    assert (board.rows, board.seeds) == (("a", "b", "c"), (2, 5))
    np.testing.assert_array_equal(board.values, [[3.0, np.nan], [2.0, 1.0], [np.nan, np.nan]])
    assert board.reasons == {("a", 5): "not run", ("c", 2): "not run", ("c", 5): "not run"}
    assert board.failed == frozenset()


def test_a_loss_that_is_no_number_is_a_failure_and_not_a_gap() -> None:
    board = align({"a": {0: math.nan, 1: 1.0}, "b": {0: 1.0, 1: -math.inf}}, PLAN)
    assert board.failed == {"a", "b"}
    assert board.reasons["a", 0] == "loss is nan" and board.reasons["b", 1] == "loss is -inf"


@pytest.mark.parametrize(
    ("seeds", "look", "used"), [(1, -1, 1), (3, 0, 3), (5, 0, 3), (6, 1, 6), (9, 1, 6)]
)
def test_a_board_is_cut_at_the_last_look_reached(seeds: int, look: int, used: int) -> None:
    plan = Plan(PLAN.comparisons, margin=0.1, looks=(3, 6))
    board = align({"a": dict.fromkeys(range(seeds), 1.0), "b": {0: 1.0}}, plan)
    assert (board.look, len(board.seeds), len(board.late)) == (look, used, seeds - used)
