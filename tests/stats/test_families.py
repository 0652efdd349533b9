from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from bench.stats.comparisons import Comparison, Family, Plan, all_pairs
from bench.stats.families import FamilyTests, compare_board, compare_family, holm, pair_indices
from bench.stats.moderation import Prior, squeeze
from bench.stats.paired import Pairs, pair_differences, paired_t

PAIRS = np.array([(2, 0), (3, 0), (2, 1), (3, 1)])
NO_PRIOR = Prior(np.array(0.0), np.array(np.nan))


def reference(p: Sequence[float]) -> np.ndarray:
    adjusted = multipletests(p, method="holm")
    assert adjusted is not None
    return np.asarray(adjusted[1], dtype=np.float64)


@settings(max_examples=8)  # multipletests collects garbage on every call
@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=40))
def test_holm_is_statsmodels(p: list[float]) -> None:
    np.testing.assert_allclose(holm(np.array(p)), reference(p), atol=1e-12)


def test_a_comparison_that_was_not_made_still_counts() -> None:
    p = np.array([0.01, np.nan, 0.03])
    adjusted = holm(p)
    np.testing.assert_allclose(adjusted[[0, 2]], reference([0.01, 1.0, 0.03])[[0, 2]])
    assert np.isnan(adjusted[1])


def test_leading_axes_are_families_of_their_own() -> None:
    p = np.random.default_rng(0).uniform(size=(3, 2, 6))
    for index in np.ndindex(3, 2):
        np.testing.assert_array_equal(holm(p)[index], holm(p[index]))


def test_without_a_prior_the_family_is_scipys_and_statsmodels() -> None:
    values = np.random.default_rng(0).normal(size=(4, 6)) + np.arange(4)[:, None] * 0.4
    tests = compare_family(values, PAIRS, NO_PRIOR)
    theirs = [stats.ttest_rel(values[i], values[j]) for i, j in PAIRS]
    alone = [t.pvalue for t in theirs]
    np.testing.assert_allclose(tests.moderated.outside(0.0, 0.0), alone, rtol=1e-9)
    np.testing.assert_allclose(tests.p_difference, reference(alone), rtol=1e-9)
    tost = [ttost_paired(values[i], values[j], -0.5, 0.5)[0] for i, j in PAIRS]
    np.testing.assert_allclose(tests.p_equivalence(0.5), reference(tost), rtol=1e-8)
    width = [np.ptp(t.confidence_interval(1 - 0.05 / 4)) / 2 for t in theirs]
    np.testing.assert_allclose(tests.half_width(0.05), width, rtol=1e-9)


def test_no_difference_stands_that_the_plain_test_denies() -> None:
    """Three alike rows and one noisy: the borrowed variance is small, the row's own is not."""
    values = np.array([[0.0, 0.0, 0.0], [0.01, -0.01, 0.0], [0.0, 0.01, -0.01], [4.0, 0.5, 0.1]])
    plain = paired_t(pair_differences(values, PAIRS))
    tests = FamilyTests(plain, squeeze(plain, Prior(np.array(np.inf), np.array(1e-4))))
    assert (tests.moderated.outside(0.0, 0.0) < plain.p).any()
    assert (tests.p_difference >= plain.p).all()


@pytest.mark.parametrize("seed", range(20))
def test_an_interval_without_zero_is_a_difference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(8, 4)) * rng.uniform(0.1, 2, (8, 1)) + 3 * rng.integers(0, 2, (8, 1))
    plan = Plan(all_pairs([f"r{i}" for i in range(8)]), margin=0.5)
    tests = compare_board(values, pair_indices(plan))["secondary"]
    outside = np.abs(tests.plain.mean) > tests.half_width(0.05)
    assert (tests.p_difference[outside] <= 0.05 + 1e-12).all()


def test_a_batch_is_its_boards_one_by_one() -> None:
    boards = np.random.default_rng(1).normal(size=(5, 6, 3)) * np.random.default_rng(2).uniform(
        0.2, 2, (5, 6, 1)
    )
    pairs: dict[Family, Pairs] = {"primary": np.array([(i, j) for i in range(6) for j in range(i)])}
    together = compare_board(boards, pairs)["primary"]
    for k, board in enumerate(boards):
        alone = compare_board(board, pairs)["primary"]
        np.testing.assert_allclose(together.p_difference[k], alone.p_difference, rtol=1e-9)
        np.testing.assert_allclose(together.half_width(0.05)[k], alone.half_width(0.05), rtol=1e-9)


def test_indices_point_into_the_rows_of_the_plan() -> None:
    plan = Plan((Comparison("b", "x"), Comparison("a", "x"), *all_pairs(["a", "b"])), margin=0.1)
    found = {
        family: [(plan.rows[i], plan.rows[j]) for i, j in pairs]
        for family, pairs in pair_indices(plan).items()
    }
    assert found == {"primary": [("b", "x"), ("a", "x")], "secondary": [("a", "b")]}
