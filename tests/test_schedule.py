"""The trapezoid, against its corners and a ramp drawn by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.schedule import trapezoid


@given(st.floats(0, 1))
def test_it_is_the_interpolation_of_its_corners(progress: float) -> None:
    wanted = np.interp(progress, [0, 0.1, 0.5, 1], [0, 1, 1, 0])
    assert trapezoid(progress, warmup=0.1, decay=0.5) == pytest.approx(wanted, abs=1e-12)


@given(st.floats(0, 1.5), st.floats(0, 1), st.floats(0, 1))
def test_it_is_a_factor_whatever_the_corners(progress: float, warmup: float, decay: float) -> None:
    assert 0 <= trapezoid(progress, warmup, decay) <= 1


def test_without_ramps_it_is_flat() -> None:
    assert [trapezoid(p, 0, 0) for p in (0.0, 0.5, 1.0)] == [1, 1, 1]


def test_a_step_over_the_end_is_not_taken_backwards() -> None:
    assert trapezoid(1.01, 0.1, 0.5) == 0
