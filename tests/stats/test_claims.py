"""The rule of verdicts against hand-worked cases and scipy."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bench.stats.claims import Expectation, Prediction, claim_verdict, judge_predictions


def predict(
    differences: list[float],
    expect: Expectation = "lower",
    least: float = 0.0,
    margin: float = 0.01,
    failed: bool = False,
    row: str = "a",
) -> Prediction:
    control = {seed: 2.0 + 0.1 * seed for seed in range(len(differences))}
    return Prediction(
        group=("half", "loss"),
        names=(row, "b"),
        row={seed: control[seed] + value for seed, value in enumerate(differences)},
        control=control,
        expect=expect,
        least=least,
        margin=margin,
        failed=failed,
    )


CLEAR = [-0.050, -0.051, -0.049, -0.050]
"""SD 0.00082 over 4 seeds: t of the mean against 0 is -122, against -0.05 it is 0."""


@pytest.mark.parametrize(
    ("expect", "least", "margin", "verdict"),
    [
        ("lower", 0.0, 0.01, "confirmed"),
        ("higher", 0.0, 0.01, "refuted"),
        ("equal", 0.0, 0.01, "refuted"),
        ("equal", 0.0, 0.06, "confirmed"),
        ("lower", 0.03, 0.01, "confirmed"),
        ("lower", 0.05, 0.01, "open"),
        ("lower", 0.08, 0.01, "refuted"),
        ("lower", 0.0, 0.06, "refuted"),  # real, but smaller than the margin
        ("equal", 0.0, 0.05, "open"),
        ("not_higher", 0.0, 0.01, "confirmed"),
        ("not_lower", 0.0, 0.01, "refuted"),
        ("not_lower", 0.0, 0.06, "confirmed"),
        ("not_lower", 0.0, 0.05, "open"),
    ],
)
def test_a_clear_difference_against_every_kind_of_claim(
    expect: Expectation, least: float, margin: float, verdict: str
) -> None:
    assert judge_predictions([predict(CLEAR, expect, least, margin)], 0.05)[0].verdict == verdict


def test_a_claim_of_no_harm_is_a_one_sided_t_test_against_the_margin() -> None:
    differences = [-0.004, 0.003, 0.001, -0.002, 0.0]
    found = judge_predictions([predict(differences, "not_lower")], 0.05)[0]
    assert found.verdict == "confirmed" and found.wins == 5
    one_sided = float(stats.ttest_1samp(differences, -0.01, alternative="greater").pvalue)
    assert found.p == pytest.approx(2 * one_sided, rel=1e-6)
    assert judge_predictions([predict([-value for value in differences], "not_higher")], 0.05)[
        0
    ].p == pytest.approx(found.p)


@pytest.mark.parametrize("expect", ["lower", "higher", "equal", "not_lower", "not_higher"])
def test_noise_larger_than_the_margin_leaves_every_claim_open(expect: Expectation) -> None:
    assert judge_predictions([predict([-0.06, 0.05, 0.02], expect)], 0.05)[0].verdict == "open"


def test_a_claim_of_lower_mirrors_one_of_higher() -> None:
    draw = np.random.default_rng(3)
    for _ in range(50):
        values = draw.normal(draw.uniform(-0.03, 0.03), 0.01, 3).tolist()
        one = judge_predictions([predict(values, "lower", 0.01, 0.02)], 0.05)[0]
        other = judge_predictions(
            [predict([-value for value in values], "higher", 0.01, 0.02)], 0.05
        )[0]
        assert (one.verdict, one.wins) == (other.verdict, other.wins)
        assert one.p == pytest.approx(other.p)


def test_one_prediction_alone_is_a_paired_t_test() -> None:
    values = [-0.02, -0.035, -0.011, -0.03]
    (found,) = judge_predictions([predict(values)], 0.05)
    expected = stats.ttest_1samp(values, 0.0)
    interval = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.interval == pytest.approx((interval.low, interval.high))
    assert found.difference == pytest.approx(np.mean(values))
    assert (found.wins, found.seeds) == (4, (0, 1, 2, 3))


def test_equality_is_the_two_one_sided_tests() -> None:
    values = [0.002, -0.001, 0.003, 0.0005]
    (found,) = judge_predictions([predict(values, "equal", margin=0.008)], 0.05)
    below = stats.ttest_1samp(values, 0.008, alternative="less").pvalue
    above = stats.ttest_1samp(values, -0.008, alternative="greater").pvalue
    assert found.p == pytest.approx(max(below, above))
    assert found.verdict == "confirmed"


def test_two_predictions_are_corrected_by_holm() -> None:
    """Two variances teach no prior, so the p values are of plain paired t tests.

    The smaller is doubled, the larger is not.
    """
    first, second = [-0.02, -0.035, -0.011, -0.03], [-0.01, -0.018, -0.002, -0.011]
    alone = sorted(stats.ttest_1samp(values, 0.0).pvalue for values in (first, second))
    found = judge_predictions([predict(first), predict(second, row="c")], 0.05)
    assert sorted(one.p for one in found) == pytest.approx(
        [min(1, 2 * alone[0]), max(2 * alone[0], alone[1])]
    )


@pytest.mark.parametrize("seed", range(20))
def test_an_interval_never_holds_what_its_verdict_excludes(seed: int) -> None:
    """Single-step intervals of a family do: Holm's second step is less strict."""
    draw = np.random.default_rng(seed)
    expected: list[Expectation] = ["lower", "higher", "equal", "not_lower", "not_higher"] * 2
    family = [
        predict((mean + draw.normal(0, 0.006, 4)).tolist(), expect, row=f"row{k}", margin=0.01)
        for k, (mean, expect) in enumerate(
            zip(draw.uniform(-0.03, 0.03, 10), expected, strict=True)
        )
    ]
    for declared, found in zip(family, judge_predictions(family, 0.05), strict=True):
        low, high = found.interval
        assert low <= found.difference <= high
        assert found.single_step[0] <= low and high <= found.single_step[1]
        assert found.verdict != "open" or found.interval == found.single_step
        holds = {
            "lower": (high <= 0, low >= -0.01),
            "higher": (low >= 0, high <= 0.01),
            "equal": (low >= -0.01 and high <= 0.01, low >= 0.01 or high <= -0.01),
            "not_lower": (low >= -0.01, high <= -0.01),
            "not_higher": (high <= 0.01, low >= 0.01),
        }[declared.expect]
        if found.verdict != "open":
            assert holds[found.verdict == "refuted"]


def test_three_wins_of_three_decide_nothing_by_themselves() -> None:
    (found,) = judge_predictions([predict([-0.001, -0.01, -0.03])], 0.05)
    assert found.wins == 3 and found.verdict == "open"


def test_a_prediction_without_data_counts_in_the_correction() -> None:
    values = [-0.02, -0.035, -0.011, -0.03]
    empty = predict([])
    found = judge_predictions([predict(values), empty], 0.05)
    assert found[0].p == pytest.approx(2 * stats.ttest_1samp(values, 0.0).pvalue)
    assert found[1].verdict == "not run" and math.isnan(found[1].p) and found[1].seeds == ()


@pytest.mark.parametrize("values", [[-0.05], []])
def test_fewer_than_two_seeds_show_nothing(values: list[float]) -> None:
    assert judge_predictions([predict(values)], 0.05)[0].verdict == (
        "open" if values else "not run"
    )


def test_a_failed_cell_confirms_and_refutes_nothing() -> None:
    assert (
        judge_predictions(
            [predict(CLEAR, "lower", failed=True), predict(CLEAR, "higher", failed=True, row="c")],
            0.05,
        )[0].verdict
        == "open"
    )


def test_identical_rows_are_equal_and_no_better() -> None:
    equal, lower = judge_predictions(
        [predict([0.0] * 3, "equal"), predict([0.0] * 3, "lower")], 0.05
    )
    assert equal.verdict == "confirmed"
    assert lower.verdict == "refuted"


def test_the_detectable_difference_is_found_four_times_in_five() -> None:
    values = [-0.02, -0.035, -0.011, -0.03, -0.024]
    (found,) = judge_predictions([predict(values)], 0.05)
    sd = float(np.std(values, ddof=1))
    draws = np.random.default_rng(0).normal(found.detectable, sd, (20_000, 5))
    assert (stats.ttest_1samp(draws, 0.0, axis=1).pvalue < 0.05).mean() == pytest.approx(
        0.8, abs=0.015
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-0.1, 0.1), min_size=2, max_size=6), st.floats(0.001, 0.05))
def test_no_claim_and_its_opposite_are_both_confirmed(values: list[float], margin: float) -> None:
    found = judge_predictions(
        [
            predict(values, "lower", margin=margin),
            predict(values, "higher", margin=margin, row="c"),
        ],
        0.05,
    )
    assert [one.verdict for one in found] != ["confirmed", "confirmed"]


def test_wrong_verdicts_are_as_rare_as_declared() -> None:
    """Six predictions of a difference that is 0, on rows with a common seed effect.

    None is confirmed in 95 % of studies.
    """
    draw = np.random.default_rng(1)
    wrong, studies = 0, 400
    for _ in range(studies):
        losses = draw.normal(2.0, 0.03, 3)[None, :] + draw.normal(0.0, 0.01, (7, 3))
        rows = [dict(enumerate(row)) for row in losses.tolist()]
        family = [
            Prediction(
                ("half", "loss"),
                (str(k), "control"),
                rows[k],
                rows[6],
                ("lower", "higher")[k % 2],
                0.0,
                0.001,
            )
            for k in range(6)
        ]
        wrong += any(one.verdict == "confirmed" for one in judge_predictions(family, 0.05))
    assert wrong / studies < 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        (["confirmed", "confirmed"], "reproduced"),
        (["confirmed", "open"], "inconclusive"),
        (["confirmed", "refuted"], "not reproduced"),
        (["refuted", "not run"], "not reproduced"),
        (["confirmed", "not run"], "not run"),
    ],
)
def test_a_claim_stands_if_all_its_predictions_do(verdicts: list, said: str) -> None:
    assert claim_verdict(verdicts) == said
