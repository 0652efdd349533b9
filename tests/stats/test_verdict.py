from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from bench.errors import UserError
from bench.stats import Comparison, Plan, judge_board
from tests.stats.boards import CONTROLS, board, plan_of, verdicts_of


def reference(p: Sequence[float]) -> np.ndarray:
    adjusted = multipletests(p, method="holm")
    assert adjusted is not None
    return np.asarray(adjusted[1], dtype=np.float64)


def test_three_seeds_and_twelve_rows_find_what_plain_tests_miss() -> None:
    """Differences of 0.1 at an SD of 0.014 for a difference, about as in pilot runs of this
    bench.
    """
    losses = board(12, 3, shift=-0.1)
    found = judge_board(losses, plan_of(losses))
    named = [
        o
        for o in found.outcomes
        if o.family == "primary"
        and o.row in ("router0", "router2", "router4", "router6", "router8")
    ]
    better = [o for o in named if o.verdict == "better"]
    assert len(better) >= 9
    assert all(o.winner == o.row and o.interval[0] < o.difference < 0 for o in better)
    plain_alone = reference([o.p_plain for o in found.outcomes if o.family == "primary"]) <= 0.05
    assert plain_alone.sum() <= len(better) / 2


def test_numbers_of_one_comparison_are_scipys() -> None:
    losses = board(2, 6)
    (outcome,) = judge_board(losses, Plan((Comparison(*CONTROLS),), margin=0.02)).outcomes
    a, b = (np.array(list(losses[name].values())) for name in CONTROLS)
    test = stats.ttest_rel(a, b)
    assert outcome.p_plain == outcome.p_adjusted == pytest.approx(test.pvalue, rel=1e-10)
    interval = pytest.approx(tuple(test.confidence_interval()), rel=1e-10)
    assert outcome.plain_interval == interval
    assert outcome.interval == interval
    assert outcome.p_sign_flip == pytest.approx(
        stats.permutation_test(
            (a - b,), np.sum, permutation_type="samples", n_resamples=1000
        ).pvalue,
        abs=1e-12,
    )


def test_rows_alike_within_the_margin_are_equivalent() -> None:
    losses = board(5, 10, sd=0.001)
    found = judge_board(losses, plan_of(losses, margin=0.02))
    assert set(verdicts_of(found).values()) == {"equivalent"}
    assert {(r.low, r.high, r.tier) for r in found.ranks} == {(1, 5, 1)}


def test_a_row_that_never_ran_still_counts_in_the_correction() -> None:
    losses = board(6, 4)
    plan = plan_of(losses)
    shown = judge_board({row: own for row, own in losses.items() if row != "router3"}, plan)
    outcome = shown.find("router3", "random")
    assert outcome is not None and outcome.verdict == "untestable" and outcome.n == 0
    assert shown.absent == ("router3",) and judge_board(losses, plan).absent == ()
    shares = plan.levels()["primary"]
    p = [o.p for o in shown.outcomes if o.family == "primary" and o.n]
    padded = reference([*p, 1.0, 1.0])[: len(p)]
    plain = [o.p_plain for o in shown.outcomes if o.family == "primary" and o.n]
    ours = [o.p_adjusted for o in shown.outcomes if o.family == "primary" and o.n]
    np.testing.assert_allclose(
        ours, np.minimum(np.maximum(padded, plain) * 0.05 / shares, 1.0), rtol=1e-9
    )


def test_seeds_beyond_a_declared_look_are_left_out() -> None:
    losses = board(5, 8)
    plan = plan_of(losses, looks=(3, 6, 10))
    found = judge_board(losses, plan)
    first_six = judge_board(
        {row: {s: own[s] for s in range(6)} for row, own in losses.items()}, plan
    )
    assert found.seeds == tuple(range(6))
    assert [o.p_adjusted for o in found.outcomes] == [o.p_adjusted for o in first_six.outcomes]
    assert any("6, 7 are left out" in note for note in found.notes)


def test_no_verdict_before_the_first_look() -> None:
    losses = board(5, 2, shift=-5.0)
    found = judge_board(losses, plan_of(losses, looks=(3, 6)))
    assert set(verdicts_of(found).values()) == {"untestable"}
    assert any("first look" in note for note in found.notes)


def test_looking_early_asks_for_more() -> None:
    losses = board(6, 3, shift=-0.1)
    once, staged = (
        judge_board(losses, plan_of(losses)),
        judge_board(losses, plan_of(losses, looks=(3, 6))),
    )
    for a, b in zip(once.outcomes, staged.outcomes, strict=True):
        assert b.p_adjusted >= a.p_adjusted
        assert b.p_plain == a.p_plain
        assert b.detectable > a.detectable


def test_correlation_over_seeds_is_shown() -> None:
    losses = board(5, 9)
    found = judge_board(losses, plan_of(losses))
    matrix = np.asarray(np.corrcoef([list(losses[row].values()) for row in found.rows]))
    np.testing.assert_allclose(found.correlation, matrix, atol=1e-10)
    assert found.mean_correlation == pytest.approx(matrix[~np.eye(5, dtype=bool)].mean())


def test_ranks_and_tiers_follow_the_secondary_family() -> None:
    losses = board(6, 10, sd=0.002, shift=-0.1)
    found = judge_board(losses, plan_of(losses))
    assert [r.tier for r in found.ranks] == [1, 1, 2, 2, 2, 2]
    assert {r.row for r in found.ranks[:2]} == {"router0", "router2"}
    assert [(r.low, r.high) for r in found.ranks] == [(1, 2)] * 2 + [(3, 6)] * 4
    assert (
        judge_board(
            losses, replace(plan_of(losses), comparisons=plan_of(losses).family("primary"))
        ).ranks
        == ()
    )


def test_a_row_that_lacks_hard_seeds_is_placed_as_if_it_had_them() -> None:
    drawn = board(6, 8, sd=0.001)
    losses = {row: {seed: loss + seed for seed, loss in own.items()} for row, own in drawn.items()}
    whole = {rank.row: rank.mean for rank in judge_board(losses, plan_of(losses)).ranks}
    losses["router3"] = {seed: losses["router3"][seed] for seed in (0, 1, 4)}
    found = {rank.row: rank.mean for rank in judge_board(losses, plan_of(losses)).ranks}
    assert found["router3"] == pytest.approx(whole["router3"], abs=0.002)
    assert {**found, "router3": 0.0} == {**whole, "router3": 0.0}


def test_nothing_to_judge_is_refused() -> None:
    with pytest.raises(UserError, match="None of the planned rows"):
        judge_board({"else": {0: 1.0}}, Plan((Comparison("a", "b"),), margin=0.1))


@settings(max_examples=12)
@given(st.integers(0, 10_000), st.integers(2, 6), st.booleans())
def test_the_order_of_a_comparison_and_the_units_do_not_matter(
    stream: int, seeds: int, holes: bool
) -> None:
    losses = board(5, seeds, shift=-0.03, stream=stream)
    if holes:
        losses["router1"].pop(0)
    plan = plan_of(losses, largest_effect=0.2)
    swapped = replace(
        plan, comparisons=tuple(Comparison(c.control, c.row, c.family) for c in plan.comparisons)
    )
    scaled = replace(plan, margin=plan.margin * 8, largest_effect=1.6)
    forward = judge_board(losses, plan)
    backward = judge_board(losses, swapped)
    larger = judge_board(
        {row: {s: 8 * loss for s, loss in own.items()} for row, own in losses.items()}, scaled
    )
    for a, b, c in zip(forward.outcomes, backward.outcomes, larger.outcomes, strict=True):
        assert (a.verdict, a.winner) == (b.verdict, b.winner) == (c.verdict, c.winner)
        assert a.difference == pytest.approx(-b.difference, nan_ok=True)
        assert a.p_adjusted == pytest.approx(c.p_adjusted, rel=1e-6, nan_ok=True)
        assert a.detectable * 8 == pytest.approx(c.detectable, rel=1e-6)


def test_a_row_alone_is_judged_as_before_when_others_are_renamed() -> None:
    losses = board(6, 4, shift=-0.05)
    renamed = {row.replace("router", "gate"): own for row, own in losses.items()}
    before, after = judge_board(losses, plan_of(losses)), judge_board(renamed, plan_of(renamed))
    assert [o.p_adjusted for o in before.outcomes] == [o.p_adjusted for o in after.outcomes]


def test_twins_are_judged_at_the_look_and_at_its_level() -> None:
    """A difference with p 0.03 fails a single look, and not an early look that spends little."""
    gaps = np.array([-1.0, 0.0, 1.0, 0.5, -0.5, 0.2, -0.2, 0.8, -0.8, 0.0])
    at_p = stats.t.isf(0.015, 9) * gaps.std(ddof=1) / np.sqrt(10)
    row = {seed: 2.0 + float(gap + at_p) for seed, gap in enumerate(gaps)}
    losses = {"row": row, "twin": dict.fromkeys(range(10), 2.0)}
    late = {"row": {**row, 10: 9.0}, "twin": dict.fromkeys(range(11), 2.0)}
    plan = Plan((Comparison("row", "twin"),), margin=0.01, twins=(("row", "twin"),))
    (single,) = judge_board(losses, plan).noise
    assert (single.passed, single.p) == (False, pytest.approx(0.03))
    for seen in (losses, late):
        (early,) = judge_board(seen, replace(plan, looks=(3, 10, 30))).noise
        assert (early.passed, early.n, early.p) == (True, 10, pytest.approx(0.03))
