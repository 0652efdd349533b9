import numpy as np
import pytest
from scipy import stats

from bench.stats.sequential import (
    chance_over_schedules,
    family_level,
    nominal_levels,
    spending,
    stages,
)


def test_boundaries_are_the_published_ones() -> None:
    """Five equal looks, two-sided 0.05.

    Lan and DeMets' O'Brien-Fleming-like bounds as published for R's ldbounds.
    """
    bounds = stats.norm.isf(np.array(nominal_levels((1, 2, 3, 4, 5), 0.05)) / 2)
    np.testing.assert_allclose(bounds, [4.8769, 3.3569, 2.6803, 2.2898, 2.0310], atol=2e-4)


@pytest.mark.parametrize(("looks", "alpha"), [((3, 6), 0.05), ((3, 6, 10), 0.01), ((2, 5), 1e-4)])
def test_all_looks_together_spend_alpha(looks: tuple[int, ...], alpha: float) -> None:
    """The joint law of the looks is a multivariate normal; scipy integrates it."""
    bounds = stats.norm.isf(np.array(nominal_levels(looks, alpha)) / 2)
    times = np.array(looks)
    covariance = np.sqrt(np.minimum.outer(times, times) / np.maximum.outer(times, times))
    mean = np.zeros(len(looks))
    inside = stats.multivariate_normal.cdf(
        bounds,
        mean=mean,
        cov=covariance,
        lower_limit=-bounds,
        abseps=1e-9,
        releps=1e-9,
        maxpts=4_000_000,
    )
    assert 1.0 - inside == pytest.approx(alpha, rel=2e-3)


def test_one_look_spends_all() -> None:
    assert nominal_levels((7,), 0.03) == pytest.approx((0.03,))
    assert family_level((7,), 0, 0.03, 12) == 0.03
    assert family_level((), 0, 0.03, 12) == 0.03


def test_stages_say_what_is_spent() -> None:
    first, last = stages((3, 6), 0.05)
    assert (first.seeds, last.seeds) == (3, 6)
    assert first.spent == pytest.approx(first.level)
    assert first.spent == pytest.approx(4 * stats.norm.sf(stats.norm.isf(0.0125) / np.sqrt(0.5)))
    assert last.spent == pytest.approx(0.05) == spending(1.0, 0.05)


def test_a_familys_level_lies_between_spending_and_alpha() -> None:
    """Rare events at different looks hardly overlap, so the last look gets at least the
    unspent rest, and at most alpha.
    """
    looks, alpha, count = (3, 6, 10), 0.04, 20
    spent = [count * spending(look / looks[-1], alpha / count) for look in looks]
    for k, before in enumerate([0.0, *spent[:-1]]):
        assert spent[k] - before <= family_level(looks, k, alpha, count) * (1 + 1e-9)
        assert family_level(looks, k, alpha, count) <= alpha


def test_a_very_early_look_spends_next_to_nothing_and_the_rest_is_left() -> None:
    levels = nominal_levels((2, 1000), 1e-3)
    assert 0.0 < levels[0] < 1e-100
    assert levels[1] == pytest.approx(1e-3, rel=1e-6)


def test_one_schedule_errs_with_alpha_and_a_second_spends_it_again() -> None:
    for looks in ((5,), (3, 6), (3, 10, 30)):
        assert chance_over_schedules([looks], 0.05, 1) == pytest.approx(0.05, rel=1e-6)
        assert chance_over_schedules([looks, looks], 0.05, 12) == pytest.approx(0.05, rel=1e-6)
    # Independent tests would err with 2 alpha - alpha^2 at most.
    for count in (1, 12, 40):
        assert 0.05 < chance_over_schedules([(10,), (10, 30)], 0.05, count) < 0.1


def test_the_chance_over_two_schedules_is_that_of_simulated_looks() -> None:
    """Two schedules of [3, 10] and [3, 10, 30]: each look at the milder of its two bounds."""
    first, second = (np.array(nominal_levels(looks, 0.05)) for looks in ((3, 10), (3, 10, 30)))
    levels = [max(first[0], second[0]), max(first[1], second[1]), second[2]]
    bounds = stats.norm.isf(np.array(levels) / 2)
    times = np.array([3.0, 10.0, 30.0])
    steps = np.random.default_rng(0).normal(size=(400_000, 3)) * np.sqrt(np.diff(times, prepend=0))
    crossed = (np.abs(steps.cumsum(axis=1)) / np.sqrt(times) > bounds).any(axis=1).mean()
    found = chance_over_schedules([(3, 10), (3, 10, 30)], 0.05, 1)
    assert found == pytest.approx(crossed, abs=4 * np.sqrt(crossed / 400_000))
