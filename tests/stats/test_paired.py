import numpy as np
import pytest
from scipy import stats

from bench.stats.paired import (
    hodges_lehmann,
    pair_differences,
    paired_t,
    seed_correlation,
    sign_flip,
)


@pytest.mark.parametrize("n", [2, 3, 5, 10, 30])
def test_paired_t_is_scipys(n: int) -> None:
    losses = np.random.default_rng(n).normal(2.0, 0.1, (4, n))
    pairs = np.array([(0, 1), (2, 3), (3, 0)])
    ours = paired_t(pair_differences(losses, pairs))
    theirs = [stats.ttest_rel(losses[i], losses[j]) for i, j in pairs]
    np.testing.assert_allclose(ours.p, [t.pvalue for t in theirs], rtol=1e-10)
    np.testing.assert_allclose(
        ours.mean / np.sqrt(ours.variance / n), [t.statistic for t in theirs], rtol=1e-10
    )


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
    ours = paired_t(
        np.array([[0.1, 0.1, 0.1], [0.0, 0.0, 0.0], [0.3, np.nan, np.nan], [np.nan] * 3])
    )
    assert ours.variance[:2].tolist() == [0.0, 0.0]
    np.testing.assert_array_equal(ours.p, [0.0, 1.0, np.nan, np.nan])


@pytest.mark.parametrize("n", [2, 3, 5, 8, 12])
def test_sign_flip_is_the_exact_permutation_test(n: int) -> None:
    for seed in range(5):
        d = np.random.default_rng(seed).normal(0.5, 1.0, n)
        exact = stats.permutation_test(
            (d,), np.sum, permutation_type="samples", n_resamples=10_000, alternative="two-sided"
        )
        assert sign_flip(d) == pytest.approx(exact.pvalue, abs=1e-12)


def test_sign_flip_counts_ties_and_has_its_smallest_value() -> None:
    assert sign_flip(np.array([0.1, 0.1, 0.1, -0.1])) == pytest.approx(10 / 16)
    assert sign_flip(np.zeros(4)) == 1.0
    for n, smallest in ((3, 0.25), (5, 0.0625), (6, 0.03125), (8, 0.0078125), (20, 2**-19)):
        assert sign_flip(np.linspace(1.0, 2.0, n)) == pytest.approx(smallest, rel=1e-12)


def test_hodges_lehmann_is_the_median_of_walsh_averages() -> None:
    d = np.random.default_rng(3).normal(size=(5, 7))
    d[1, 3] = d[2, 0] = np.nan
    d[3, 1:] = np.nan
    d[4] = np.nan
    estimate = hodges_lehmann(d)
    for row, value in zip(d[:4], estimate[:4], strict=True):
        seen = row[~np.isnan(row)]
        naive = np.median(
            [(seen[i] + seen[j]) / 2 for i in range(len(seen)) for j in range(i, len(seen))]
        )
        assert value == pytest.approx(naive, abs=1e-14)
    assert np.isnan(estimate[4])


def test_correlation_is_numpys_over_common_seeds() -> None:
    rng = np.random.default_rng(1)
    losses = rng.normal(size=(4, 9)) + 2.0 * rng.normal(size=9)
    np.testing.assert_allclose(seed_correlation(losses), np.corrcoef(losses), atol=1e-12)
    losses[0, :2] = losses[1, 2:4] = losses[3, 2:] = np.nan
    ours = seed_correlation(losses)
    assert ours[0, 1] == pytest.approx(np.asarray(np.corrcoef(losses[:2, 4:]))[0, 1], abs=1e-12)
    assert np.isnan(ours[3]).all()
