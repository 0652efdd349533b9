from itertools import product

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.weightstats import DescrStatsW, ttost_paired

from bench.stats.paired import (
    SIGN_FLIPS,
    pair_differences,
    paired_t,
    seed_correlation,
    sign_flip,
)


@pytest.mark.parametrize("n", [2, 3, 5, 10, 30])
def test_paired_t_is_statsmodels(n: int) -> None:
    losses = np.random.default_rng(n).normal(2.0, 0.1, (4, n))
    ours = paired_t(pair_differences(losses, np.array([(0, 1), (2, 3), (3, 0)])))
    theirs = [DescrStatsW(losses[i] - losses[j]) for i, j in ((0, 1), (2, 3), (3, 0))]
    np.testing.assert_allclose(ours.p, [t.ttest_mean(0)[1] for t in theirs], rtol=1e-9)
    for bound in (-0.05, np.array([0.0, 0.02, -0.1])):
        bounds = np.broadcast_to(bound, 3)
        pairs = list(zip(theirs, bounds, strict=True))
        below = [t.ttest_mean(b.item(), alternative="smaller")[1] for t, b in pairs]
        above = [t.ttest_mean(b.item(), alternative="larger")[1] for t, b in pairs]
        np.testing.assert_allclose(ours.below(bound), below, rtol=1e-9)
        np.testing.assert_allclose(ours.above(bound), above, rtol=1e-9)
    width = [np.ptp(t.tconfint_mean(0.02)) / 2 for t in theirs]
    np.testing.assert_allclose(ours.half_width(0.02), width, rtol=1e-9)


@pytest.mark.parametrize("n", [2, 3, 8])
@pytest.mark.parametrize("margin", [0.01, 0.5, 3.0])
def test_inside_the_margin_is_statsmodels_tost(n: int, margin: float) -> None:
    first, second = np.random.default_rng(n).normal(size=(2, n))
    ours = paired_t((first - second)[None]).inside(-margin, margin)
    assert ours[0] == pytest.approx(ttost_paired(first, second, -margin, margin)[0], rel=1e-8)


def test_missing_seeds_are_left_out_of_the_pair_that_lacks_them() -> None:
    losses = np.random.default_rng(0).normal(size=(3, 6))
    losses[1, 2] = np.nan
    ours = paired_t(pair_differences(losses, np.array([(0, 1), (0, 2)])))
    kept = [0, 1, 3, 4, 5]
    assert ours.n.tolist() == [5, 6]
    assert ours.p[0] == pytest.approx(
        stats.ttest_rel(losses[0, kept], losses[1, kept]).pvalue, rel=1e-10
    )
    assert ours.p[1] == pytest.approx(stats.ttest_rel(losses[0], losses[2]).pvalue, rel=1e-10)


def test_t_without_variance_or_seeds() -> None:
    one, none = [0.3, np.nan, np.nan], [np.nan] * 3
    ours = paired_t(np.array([[0.125] * 3, [0.1] * 3, [0.0] * 3, one, none]))
    assert ours.variance[:3].tolist() == [0.0, 0.0, 0.0]
    np.testing.assert_allclose(ours.p, [0.0, 0.0, 1.0, np.nan, np.nan], atol=1e-30)
    np.testing.assert_allclose(ours.half_width(0.05), [0, 0, 0, np.nan, np.nan], atol=1e-15)
    np.testing.assert_array_equal(ours.inside(-0.125, 0.125)[[0, 2]], [0.5, 0.0])
    np.testing.assert_array_equal(ours.inside(-0.1, 0.1)[[0, 2]], [1.0, 0.0])


def test_a_bound_that_is_infinite_leaves_a_one_sided_test_at_half_the_level() -> None:
    d = np.random.default_rng(0).normal(0.3, 1.0, (4, 5))
    ours = paired_t(d)
    one_sided = stats.ttest_1samp(d, 0.2, axis=-1, alternative="greater").pvalue
    np.testing.assert_allclose(ours.outside(-np.inf, 0.2), np.minimum(2 * one_sided, 1), rtol=1e-12)
    np.testing.assert_allclose(ours.inside(0.2, np.inf), one_sided, rtol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 13])
def test_sign_flip_counts_every_assignment_of_signs(n: int) -> None:
    for seed in range(3):
        d = np.random.default_rng(seed).normal(0.5, 1.0, n)
        sums = np.array(list(product((-1.0, 1.0), repeat=n))) @ np.abs(d)
        assert sign_flip(d) == np.mean(np.abs(sums) >= abs(d.sum()) - 1e-9)


def test_sign_flip_of_many_seeds_is_drawn_and_repeats() -> None:
    d = np.random.default_rng(1).normal(0.06, 1.0, 200)
    expected = stats.ttest_1samp(d, 0.0).pvalue  # the two agree as seeds grow
    assert sign_flip(d) == sign_flip(d) == pytest.approx(expected, abs=4 / np.sqrt(SIGN_FLIPS))


def test_sign_flip_counts_ties_and_has_its_smallest_value() -> None:
    assert sign_flip(np.array([0.1, 0.1, 0.1, -0.1])) == pytest.approx(10 / 16)
    assert sign_flip(np.zeros(4)) == 1.0
    for n, smallest in ((3, 0.25), (5, 0.0625), (6, 0.03125), (8, 0.0078125)):
        assert sign_flip(np.linspace(1.0, 2.0, n)) == pytest.approx(smallest, rel=1e-12)


def test_correlation_is_numpys_over_common_seeds() -> None:
    rng = np.random.default_rng(1)
    losses = rng.normal(size=(4, 9)) + 2.0 * rng.normal(size=9)
    np.testing.assert_allclose(seed_correlation(losses), np.corrcoef(losses), atol=1e-12)
    losses[0, :2] = losses[1, 2:4] = losses[3, 2:] = np.nan
    ours = seed_correlation(losses)
    assert ours[0, 1] == pytest.approx(np.asarray(np.corrcoef(losses[:2, 4:]))[0, 1], abs=1e-12)
    assert np.isnan(ours[3]).all()
