"""The error of predictions: none for rows that follow the rule, and half for a slow one."""

import pytest

from bench.planning.prediction_error import leave_one_out
from tests.planning.test_rates import grid, measured, work


def test_the_error_is_that_of_rows_that_were_left_out() -> None:
    exact = leave_one_out(grid())
    assert exact is not None and exact.rows == 12 and exact.largest < 1e-6
    slow = measured(work("slow", 1e12, 4e5, 1), noise=2.0)
    found = leave_one_out([*grid(), slow])
    assert found is not None and found.worst == "slow"
    assert found.largest == pytest.approx(0.5, abs=1e-6), "half of the time that it took"
    assert found.typical < 0.3
    memory = leave_one_out(grid(), "memory")
    assert memory is not None and memory.largest < 1e-6
    assert leave_one_out(grid()[:4]) is None, "too few rows"
