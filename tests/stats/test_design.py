import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from bench.stats.design import detectable, rejection_power


@pytest.mark.parametrize("n", [2, 3, 5, 10, 20, 60])
@pytest.mark.parametrize("effect", [0.0, 0.5, 1.0, 2.0])
def test_power_without_moderation_is_the_noncentral_ts(n: int, effect: float) -> None:
    ours = rejection_power(
        np.array([effect]), np.array([float(n)]), np.zeros(1), np.full(1, np.nan), 1, 0.05
    )[0]
    critical, shift = stats.t.isf(0.025, n - 1), effect * np.sqrt(n)
    wrong_side = np.nan_to_num(
        stats.nct.cdf(-critical, n - 1, shift)
    )  # scipy gives NaN for numbers that are 0 in double precision
    assert ours == pytest.approx(stats.nct.sf(critical, n - 1, shift) + wrong_side, abs=2e-4)


@pytest.mark.parametrize(("n", "expected"), [(3, 3.3), (5, 1.7), (10, 1.0), (20, 0.66)])
def test_detectable_difference_of_a_plain_t_test(n: int, expected: float) -> None:
    found = (
        detectable(np.array([0.02]), np.array([float(n)]), np.zeros(1), np.nan, 1, 0.05)[0] / 0.02
    )
    assert found == pytest.approx(TTestPower().solve_power(None, n, 0.05, 0.8), rel=5e-3)
    assert found == pytest.approx(expected, abs=0.06)


def test_power_of_the_rule_is_that_of_its_simulation() -> None:
    """The rule written out again, on normal differences whose prior variance is known."""
    n, prior_df, ratio, comparisons, level, effect = 4, 6.0, 1.3, 15, 0.04, 2.2
    d = np.random.default_rng(0).normal(effect, 1.0, (200_000, n))
    mean, variance = d.mean(1), d.var(1, ddof=1)
    squeezed = (prior_df * ratio + (n - 1) * variance) / (prior_df + n - 1)
    p = 2 * stats.t.sf(np.abs(mean) / np.sqrt(squeezed / n), prior_df + n - 1)
    plain = 2 * stats.t.sf(np.abs(mean) / np.sqrt(variance / n), n - 1)
    simulated = ((p <= level / comparisons) & (plain <= level)).mean()
    ours = rejection_power(
        np.array([effect]),
        np.array([float(n)]),
        np.array([prior_df]),
        np.array([ratio]),
        comparisons,
        level,
    )[0]
    assert ours == pytest.approx(simulated, abs=0.005)


def test_detectable_difference_has_the_power_it_says() -> None:
    sd, n, prior_df = np.array([0.01, 0.03]), np.array([3.0, 7.0]), np.array([4.0, 12.0])
    smallest = detectable(sd, n, prior_df, 0.0004, 20, 0.04, 0.9)
    np.testing.assert_allclose(
        rejection_power(smallest / sd, n, prior_df, 0.0004 / sd**2, 20, 0.04), 0.9, atol=1e-6
    )


def test_detectable_at_the_edges() -> None:
    found = detectable(
        np.array([np.nan, 0.0, 1.0]), np.array([1.0, 3.0, 0.0]), np.zeros(3), np.nan, 1, 0.05
    )
    assert found.tolist() == [np.inf, 0.0, np.inf]
