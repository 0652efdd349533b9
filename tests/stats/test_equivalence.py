import numpy as np
import pytest
from statsmodels.stats.weightstats import ttost_paired

from bench.stats.equivalence import tost


@pytest.mark.parametrize("n", [2, 3, 8])
@pytest.mark.parametrize("margin", [0.01, 0.5, 3.0])
def test_tost_is_statsmodels(n: int, margin: float) -> None:
    first, second = np.random.default_rng(n).normal(size=(2, n))
    d = first - second
    ours = tost(
        np.array([d.mean()]),
        np.array([d.var(ddof=1)]),
        np.array([float(n)]),
        np.array([n - 1.0]),
        margin,
    )
    assert ours[0] == pytest.approx(ttost_paired(first, second, -margin, margin)[0], rel=1e-8)


def test_tost_without_variance_is_a_comparison_with_the_margin() -> None:
    mean = np.array([0.0, 0.2, -0.5, 0.3])
    p = tost(mean, np.zeros(4), np.full(4, 3.0), np.full(4, 2.0), 0.3)
    np.testing.assert_array_equal(p, [0.0, 0.0, 1.0, 0.5])
    assert np.isnan(
        tost(np.array([0.1]), np.array([np.nan]), np.array([1.0]), np.array([0.0]), 0.3)
    )[0]
