import numpy as np
import pytest
from scipy import stats

from bench.stats.ranks import (
    FRIEDMAN_MIN_SEEDS,
    friedman,
    nemenyi_critical_difference,
    rank_intervals,
)


def test_rank_intervals_count_who_is_shown_to_be_better_or_worse() -> None:
    means = {"d": 4.0, "a": 1.0, "c": 3.0, "b": 2.0}
    ranks = rank_intervals(means, {("a", "c"), ("a", "d"), ("b", "d")})
    assert [(r.row, r.low, r.high, r.tier) for r in ranks] == [
        ("a", 1, 2, 1),
        ("b", 1, 3, 1),
        ("c", 2, 4, 2),
        ("d", 3, 4, 2),
    ]


def test_rows_that_are_not_told_apart_share_tier_and_ranks() -> None:
    assert {
        (r.low, r.high, r.tier) for r in rank_intervals({"a": 1.0, "b": 2.0, "c": 3.0}, set())
    } == {(1, 3, 1)}


def test_a_row_without_a_loss_comes_last_and_could_stand_anywhere() -> None:
    ranks = rank_intervals({"lost": float("nan"), "a": 1.0, "b": 2.0}, {("a", "b")})
    assert [r.row for r in ranks] == ["a", "b", "lost"]
    assert (ranks[2].low, ranks[2].high) == (1, 3)


def test_true_ranks_lie_in_intervals_of_true_statements() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        order = [f"r{i}" for i in rng.permutation(8)]
        better = {
            (a, b) for i, a in enumerate(order) for b in order[i + 1 :] if rng.uniform() < 0.4
        }
        shuffled = {row: float(mean) for row, mean in zip(order, rng.normal(size=8), strict=True)}
        for rank in rank_intervals(shuffled, better):
            assert rank.low <= 1 + order.index(rank.row) <= rank.high


def test_friedman_is_scipys_with_iman_and_davenports_f() -> None:
    values = np.random.default_rng(1).normal(size=(4, 7)) + np.arange(4)[:, None] * 0.5
    found = friedman(("a", "b", "c", "d"), values, 0.05)
    assert found is not None
    chi_squared = stats.friedmanchisquare(*values).statistic
    assert found.chi_squared == pytest.approx(chi_squared, rel=1e-12)
    # Iman and Davenport's F is the F test of a two-way analysis of variance on the ranks.
    ranks = stats.rankdata(values, axis=0)
    between = 7 * ((ranks.mean(1) - 2.5) ** 2).sum() / 3
    residual = ((ranks - ranks.mean(1, keepdims=True)) ** 2).sum() / 18
    assert found.p == pytest.approx(stats.f.sf(between / residual, 3, 18), rel=1e-9)
    assert found.mean_ranks["a"] == pytest.approx(ranks[0].mean())


def test_friedman_leaves_out_a_row_that_was_not_run() -> None:
    values = np.random.default_rng(3).normal(size=(4, 7))
    values[1] = np.nan
    assert friedman("abcd", values, 0.05) == friedman("acd", values[[0, 2, 3]], 0.05)


def test_friedman_needs_rows_seeds_and_some_variation() -> None:
    values = np.random.default_rng(2).normal(size=(3, FRIEDMAN_MIN_SEEDS))
    assert friedman("abc", values, 0.05) is not None
    assert friedman("ab", values[:2], 0.05) is None
    assert friedman("abc", np.ones((3, 9)), 0.05) is None
    values[1, 2] = np.nan
    assert friedman("abc", values, 0.05) is None


@pytest.mark.parametrize(
    ("alpha", "published"),
    [
        (0.05, [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]),
        (0.10, [1.645, 2.052, 2.291, 2.459, 2.589, 2.693, 2.780, 2.855, 2.920]),
    ],
)
def test_nemenyi_q_is_demsars_table_5a(alpha: float, published: list[float]) -> None:
    """Demsar (2006), table 5(a), two to ten classifiers."""
    for rows, q in enumerate(published, start=2):
        assert nemenyi_critical_difference(rows, 14, alpha) == pytest.approx(
            q * np.sqrt(rows * (rows + 1) / (6 * 14)), abs=1e-3
        )


def test_nemenyi_example_of_the_paper() -> None:
    """Demsar (2006), section 3.2.3.

    Four classifiers on fourteen data sets, CD 1.25 at 5 % and 1.12 at 10 %.
    """
    assert nemenyi_critical_difference(4, 14, 0.05) == pytest.approx(1.25, abs=0.01)
    assert nemenyi_critical_difference(4, 14, 0.10) == pytest.approx(1.12, abs=0.01)
