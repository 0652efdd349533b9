import mpmath
import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bench.stats.moderation import (
    PRIOR_DF_CAP,
    Prior,
    board_prior,
    fit_prior,
    row_variances,
    squeeze,
    trigamma_inverse,
)
from bench.stats.paired import PairedTests, paired_t


def paired_tests(variance: list[float], df: list[float]) -> PairedTests:
    """Paired tests that have these variances."""
    nothing = np.full((len(df), 1), np.nan)
    return PairedTests(nothing, np.array(df) + 1.0, np.zeros(len(df)), np.array(variance))


@given(st.floats(1e-6, 1e6))
def test_trigamma_inverse_inverts(x: float) -> None:
    y = float(trigamma_inverse(np.array([x]))[0])
    assert float(mpmath.polygamma(1, y)) == pytest.approx(x, rel=1e-9)


def test_prior_solves_smyths_moment_equations() -> None:
    """Smyth (2004), section 6.2, solved apart from our code.

    Mpmath's polygammas and a bracketing root finder at 30 digits.
    """
    variance = np.array([0.8, 1.9, 0.3, 1.1, 4.2, 0.6, 0.05, 2.2])
    df = np.array([2.0, 2.0, 2.0, 3.0, 4.0, 2.0, 2.0, 3.0])
    with mpmath.workdps(30):
        e = [
            mpmath.log(s) - mpmath.digamma(d / 2) + mpmath.log(d / 2)
            for s, d in zip(variance.tolist(), df.tolist(), strict=True)
        ]
        mean = mpmath.fsum(e) / len(e)
        excess = mpmath.fsum((x - mean) ** 2 for x in e) / (len(e) - 1) - mpmath.fsum(
            mpmath.polygamma(1, d / 2) for d in df
        ) / len(e)
        half = mpmath.findroot(
            lambda y: mpmath.polygamma(1, y) - excess, (0.05, 50), solver="anderson"
        )
        scale = mpmath.exp(mean + mpmath.digamma(half) - mpmath.log(half))
    prior = fit_prior(variance, df)
    assert float(prior.df) == pytest.approx(float(2 * half), rel=1e-8)
    assert float(prior.variance) == pytest.approx(float(scale), rel=1e-8)


def test_prior_recovers_the_distribution_it_assumes() -> None:
    rng = np.random.default_rng(0)
    true = 3.0 * 6.0 / rng.chisquare(6.0, 200_000)
    prior = fit_prior(true * rng.chisquare(4.0, 200_000) / 4.0, np.full(200_000, 4.0))
    assert float(prior.df) == pytest.approx(6.0, rel=0.03)
    assert float(prior.variance) == pytest.approx(3.0, rel=0.01)


def test_variances_that_differ_by_chance_alone_have_an_infinite_prior() -> None:
    prior = fit_prior(np.array([1.0, 1.1, 0.9, 1.05]), np.full(4, 5.0))
    assert np.isinf(prior.df)


@pytest.mark.parametrize(
    ("variance", "df"),
    [
        ([1.0, 2.0], [3.0, 3.0]),
        ([], []),
        ([np.nan, 1.0, 2.0], [0.0, 2.0, 2.0]),
        ([0.0, 0.0, 0.0], [2.0] * 3),
    ],
)
def test_nothing_to_learn_from_is_no_prior(variance: list[float], df: list[float]) -> None:
    prior = fit_prior(np.array(variance), np.array(df))
    assert float(prior.df) == 0.0
    own = [0.7, 1.3]
    np.testing.assert_array_equal(squeeze(paired_tests(own, [2.0, 3.0]), prior).variance, own)


def test_missing_variances_are_as_if_not_there() -> None:
    variance = np.array([0.4, 3.0, np.nan, 0.9, 1.7])
    df = np.array([2.0, 2.0, 0.0, 3.0, 2.0])
    kept = ~np.isnan(variance)
    with_gap, without = fit_prior(variance, df), fit_prior(variance[kept], df[kept])
    assert (float(with_gap.df), float(with_gap.variance)) == (
        float(without.df),
        float(without.variance),
    )


def test_moderated_variance_is_the_posterior_mean_precision_up_to_the_cap() -> None:
    prior = Prior(np.array(3.0), np.array(2.0))
    got = squeeze(paired_tests([0.5, 8.0], [2.0, 2.0]), prior)
    np.testing.assert_allclose(got.variance, [(3 * 2.0 + 2 * 0.5) / 5, (3 * 2.0 + 2 * 8.0) / 5])
    assert got.df.tolist() == [5.0, 5.0]
    capped = squeeze(paired_tests([0.5], [2.0]), Prior(np.array(np.inf), np.array(2.0)))
    assert capped.df.tolist() == [2.0 + 2.0 * PRIOR_DF_CAP]


@pytest.mark.parametrize("missing", [[], [(0, 1)], [(0, 1), (2, 4), (3, 0), (3, 1)]])
def test_row_variances_are_those_of_the_additive_model(missing: list[tuple[int, int]]) -> None:
    values = np.random.default_rng(4).normal(size=(5, 6)) + np.arange(6)
    for cell in missing:
        values[cell] = np.nan
    row, seed = np.nonzero(~np.isnan(values))
    table = pd.DataFrame({"loss": values[row, seed], "row": row, "seed": seed})
    fit = smf.ols("loss ~ C(row) + C(seed)", table).fit()
    left = 1.0 - fit.get_influence().hat_matrix_diag
    expected = [(fit.resid[row == r] ** 2).sum() / left[row == r].sum() for r in range(5)]
    variance, df = row_variances(values)
    np.testing.assert_allclose(variance, expected, rtol=1e-10)
    assert df.tolist() == [(row == r).sum() - 1.0 for r in range(5)]
    # Weighted by degrees of freedom left they pool to the model's own error variance.
    pooled = sum(v * left[row == r].sum() for r, v in enumerate(variance)) / left.sum()
    assert pooled == pytest.approx(fit.mse_resid, rel=1e-10)


def test_a_batch_is_its_boards_one_by_one() -> None:
    boards = np.random.default_rng(5).normal(size=(7, 6, 4)) * np.random.default_rng(6).uniform(
        0.2, 3, (7, 6, 1)
    )
    batch = fit_prior(*row_variances(boards))
    for k, board in enumerate(boards):
        single = fit_prior(*row_variances(board))
        assert float(batch.df[k]) == pytest.approx(float(single.df), rel=1e-9)
        assert float(batch.variance[k]) == pytest.approx(float(single.variance), rel=1e-9)


def test_board_prior_takes_the_smaller_weight_and_no_less_than_the_median() -> None:
    differences = np.array([0.01, 0.02, 4.0, 5.0, 6.0])
    df = np.full(5, 4.0)
    own = fit_prior(differences, df)
    assert np.isfinite(own.df)
    prior = board_prior(differences, df, Prior(np.array(np.inf), np.array(1.0)))
    assert prior.df.item() == pytest.approx(float(own.df))
    assert prior.variance.item() == max(float(own.variance), 4.0)
    tighter = board_prior(differences, df, Prior(np.array(0.5), np.array(1.0)))
    assert tighter.df.item() == 0.5
    none = board_prior(differences, df, Prior(np.array(0.0), np.array(np.nan)))
    assert none.df.item() == 0.0


def test_one_outlying_seed_cannot_make_a_difference() -> None:
    """As one seed runs away, t tends to sqrt((d0 + d) / d).

    The cap keeps that below every critical value in use.
    """
    limit = np.sqrt(1.0 + PRIOR_DF_CAP)
    for n in (3, 5, 10):
        assert limit < stats.t.isf(0.025, (n - 1) * (1 + PRIOR_DF_CAP))


def test_a_moderated_test_is_scipys_t_of_the_moderated_variance() -> None:
    d = np.random.default_rng(2).normal(0.4, 1.0, (2, 4))
    tests = squeeze(paired_t(d), Prior(np.array(3.0), np.array(0.7)))
    variance = (3 * 0.7 + 3 * d.var(1, ddof=1)) / 6
    t = (d.mean(1) - 0.1) / np.sqrt(variance / 4)
    np.testing.assert_allclose(tests.above(0.1), stats.t.sf(t, 6), rtol=1e-12)
    np.testing.assert_allclose(tests.below(0.1), stats.t.cdf(t, 6), rtol=1e-12)
    np.testing.assert_allclose(tests.outside(0.1, 0.1), 2 * stats.t.sf(np.abs(t), 6), rtol=1e-12)


def test_a_moderated_test_without_variance_gives_the_limit() -> None:
    none = Prior(np.array(0.0), np.array(np.nan))
    tests = squeeze(paired_t(np.array([[0.25] * 3, [0.0] * 3])), none)
    assert tests.outside(0.0, 0.0).tolist() == [0.0, 1.0]
    assert tests.inside(-0.25, 0.25).tolist() == [0.5, 0.0]
    assert tests.inside(-0.1, 0.1).tolist() == [1.0, 0.0]
