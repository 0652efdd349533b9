"""One comparison: its excluded seeds, its possible winners, and the notes on its verdict."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from bench.stats import Comparison, Plan, judge_board
from bench.stats.outcome import cut_interval
from tests.stats.boards import board, plan_of, verdicts_of


def test_a_difference_that_does_not_matter_is_equivalent_and_has_a_winner() -> None:
    losses = board(5, 12, sd=0.0005, shift=-0.004)
    outcome = judge_board(losses, plan_of(losses, margin=0.02)).find("router0", "random")
    assert outcome is not None
    assert (outcome.verdict, outcome.winner) == ("equivalent", "router0")
    assert outcome.interval[0] > -0.02 and outcome.interval[1] <= 0.0


def test_untestable_is_when_even_the_largest_plausible_effect_would_be_missed() -> None:
    losses = board(6, 3, sd=0.05)
    plan = plan_of(losses)
    free = judge_board(losses, plan)
    limited = judge_board(losses, replace(plan, largest_effect=0.1))
    assert set(verdicts_of(free).values()) == {"inconclusive"}
    for before, after in zip(free.outcomes, limited.outcomes, strict=True):
        assert after.verdict == ("untestable" if before.detectable > 0.1 else "inconclusive")
        assert after.detectable == before.detectable


def test_one_seed_is_untestable_and_shows_the_difference() -> None:
    losses = board(4, 1)
    found = judge_board(losses, plan_of(losses))
    assert set(verdicts_of(found).values()) == {"untestable"}
    outcome = found.outcomes[0]
    assert outcome.difference == pytest.approx(losses[outcome.row][0] - losses[outcome.control][0])
    assert math.isinf(outcome.detectable) and math.isnan(outcome.p_adjusted)


def test_unequal_seed_sets_use_what_is_common_and_say_so() -> None:
    losses = board(4, 5)
    del losses["router0"][1], losses["random"][4]
    outcome = judge_board(losses, plan_of(losses)).find("router0", "random")
    assert outcome is not None
    assert outcome.seeds == (0, 2, 3)
    assert outcome.excluded == {1: "router0: not run", 4: "random: not run"}
    a, b = ([losses[name][s] for s in (0, 2, 3)] for name in ("router0", "random"))
    assert outcome.p_plain == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-10)
    assert "3 of 5 seeds" in outcome.notes


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_row_that_failed_somewhere_does_not_win_on_the_rest(loss: float) -> None:
    losses = board(6, 6, sd=0.001, shift=-0.1)
    losses["router0"][2] = loss
    found = judge_board(losses, plan_of(losses, margin=0.005))
    failed, whole = found.find("router0", "random"), found.find("router2", "random")
    assert failed is not None and whole is not None
    assert (failed.verdict, failed.winner) == ("inconclusive", None)
    assert "router0 failed" in failed.notes and failed.excluded == {2: f"router0: loss is {loss}"}
    assert (whole.verdict, whole.winner) == ("better", "router2")


def test_a_row_that_failed_may_lose() -> None:
    losses = board(6, 6, sd=0.001, shift=0.1)
    losses["router0"][2] = math.nan
    outcome = judge_board(losses, plan_of(losses)).find("router0", "random")
    assert outcome is not None and (outcome.verdict, outcome.winner) == ("better", "random")


def test_identical_losses_are_never_a_difference() -> None:
    losses = board(5, 4)
    losses["router1"] = dict(losses["router0"])
    found = judge_board(losses, plan_of(losses)).find("router0", "router1", "secondary")
    assert found is not None
    assert (found.p, found.winner, found.difference) == (1.0, None, 0.0)
    assert "Identical losses" in found.notes


def test_a_board_without_any_variance() -> None:
    flat = {row: {s: 2.0 + s for s in range(3)} for row in ("random", "dense_matched", "router0")}
    flat["router0"] = {s: loss - 0.125 for s, loss in flat["router0"].items()}
    found = verdicts_of(judge_board(flat, plan_of(flat)))
    assert found == {
        ("router0", "random"): "untestable",
        ("router0", "dense_matched"): "untestable",
    }


@pytest.mark.parametrize("first", [0.001, 0.03, 0.2])
@pytest.mark.parametrize("second", [0.001, 0.03, 0.04, 0.2])
def test_an_interval_holds_0_only_where_holm_finds_no_difference(
    first: float, second: float
) -> None:
    """Two pairs with given p values: scipy's Bonferroni intervals, and Holm by statsmodels.

    Two pairs are too few to borrow variances from.
    """
    noise = np.array([-1.0, 1.0, 0.5, -0.5, 0.2, -0.2])
    error = noise.std(ddof=1) / np.sqrt(len(noise))
    gaps = [noise + sign * stats.t.isf(p / 2, 5) * error for p, sign in ((first, 1), (second, -1))]
    losses = {f"control{k}": {s: 2.0 + s for s in range(6)} for k in range(2)}
    for k, gap in enumerate(gaps):
        losses[f"row{k}"] = {s: 2.0 + s + float(value) for s, value in enumerate(gap)}
    pairs = tuple(Comparison(f"row{k}", f"control{k}") for k in range(2))
    outcomes = judge_board(losses, Plan(pairs, margin=1e-4)).outcomes
    rejected = multipletests([first, second], method="holm")[0]
    for one, gap, real in zip(outcomes, gaps, rejected, strict=True):
        wide = stats.ttest_1samp(gap, 0.0).confidence_interval(1 - 0.05 / 2)
        assert one.single_step == pytest.approx(tuple(wide))
        assert (one.winner is not None) == real == (not one.interval[0] < 0.0 < one.interval[1])
        # The end away from 0 stays, and no interval grows.
        assert max(map(abs, one.interval)) == max(map(abs, one.single_step))
        assert one.single_step[0] <= one.interval[0] <= one.difference
        assert one.difference <= one.interval[1] <= one.single_step[1]


def test_an_interval_is_cut_at_what_its_verdict_excludes_and_nowhere_else() -> None:
    wide = (-0.05, 0.01)
    assert cut_interval(wide, -0.02, "better", "row", 0.03) == (-0.05, 0.0)
    assert cut_interval((-0.01, 0.05), 0.02, "better", "control", 0.03) == (0.0, 0.05)
    assert cut_interval(wide, -0.02, "equivalent", None, 0.03) == (-0.03, 0.01)
    assert cut_interval(wide, -0.02, "equivalent", "row", 0.03) == (-0.03, 0.0)
    for verdict in ("inconclusive", "untestable"):
        assert cut_interval(wide, -0.02, verdict, None, 0.03) == wide
    assert cut_interval((-0.05, -0.01), -0.03, "better", "row", 0.03) == (-0.05, -0.01)
