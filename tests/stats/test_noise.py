import numpy as np
import pytest
from scipy import stats

from bench.stats.noise import noise_floor


def test_floor_is_the_half_width_of_the_t_interval() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(2, 0.01, (2, 5))
    (found,) = noise_floor(
        {"gate": dict(enumerate(a)), "twin": dict(enumerate(b))}, [("gate", "twin")]
    )
    test = stats.ttest_rel(a, b)
    low, high = test.confidence_interval(0.95)
    assert found.floor == pytest.approx((high - low) / 2, rel=1e-10)
    assert found.p == pytest.approx(test.pvalue, rel=1e-10)
    assert found.passed is bool(test.pvalue > 0.05)
    assert found.sd_upper == pytest.approx(
        found.sd * np.sqrt(4 / stats.chi2.ppf(0.1, 4)), rel=1e-10
    )


def test_a_twin_that_differs_every_time_fails() -> None:
    row = {s: 2.0 + 0.001 * s for s in range(5)}
    twin = {s: loss - 0.1 - 0.0001 * (s % 2) for s, loss in row.items()}
    (found,) = noise_floor({"gate": row, "twin": twin}, [("gate", "twin")])
    assert found.passed is False


def test_twins_pass_as_often_as_they_should() -> None:
    rng = np.random.default_rng(1)
    failed = 0
    for _ in range(800):
        losses = {name: dict(enumerate(rng.normal(size=3))) for name in ("a", "a2", "b", "b2")}
        failed += any(
            floor.passed is False for floor in noise_floor(losses, [("a", "a2"), ("b", "b2")])
        )
    assert 0.03 < failed / 800 < 0.065


def test_two_twins_of_one_row_keep_the_level_with_several_router_seeds() -> None:
    """Values of a task are means over three router seeds with an SD of their own."""
    rng = np.random.default_rng(2)
    failed = 0
    for _ in range(1000):
        task = rng.normal(0, 1, 10)
        names = ("row", "twin", "twin-2")
        means = [task + rng.normal(0, 0.03, (3, 10)).mean(axis=0) for _ in names]
        losses = {name: dict(enumerate(own)) for name, own in zip(names, means, strict=True)}
        twins = [("row", "twin"), ("row", "twin-2")]
        failed += any(floor.passed is False for floor in noise_floor(losses, twins))
    assert 0.03 < failed / 1000 < 0.055


def test_too_few_seeds_say_nothing() -> None:
    losses = {"a": {0: 1.0, 1: float("nan")}, "b": {0: 1.1, 1: 1.0}}
    one, none = noise_floor(losses, [("a", "b"), ("a", "absent")])
    assert (one.n, one.passed, none.n, none.passed) == (1, None, 0, None)
    assert noise_floor(losses, []) == ()
