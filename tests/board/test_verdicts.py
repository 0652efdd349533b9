"""From rows to declared comparisons, and the words for their outcomes."""

import math

from bench.board.build import boards_of
from bench.board.verdicts import Entrant, declared_plan, judge_rows, word
from tests.board.synthetic import records

DECLARED = {"margin": 0.02, "alpha": 0.1, "looks": [3], "dense_matched": "matched"}
LOSSES = {seed: 2.0 + 0.01 * seed for seed in range(3)}
ENTRANTS = [
    Entrant("a", "random", True, None, LOSSES),
    Entrant("b", "a", True, None, {}),
    Entrant("c", "b", True, None, LOSSES),
    Entrant("random", None, False, None, LOSSES),
    Entrant("matched", None, False, None, LOSSES),
    Entrant("a@twin", None, False, "a", LOSSES),
]


def test_routers_stand_against_both_controls_even_if_they_did_not_run() -> None:
    plan = declared_plan(ENTRANTS, DECLARED)
    assert [(one.row, one.control) for one in plan.family("primary")] == [
        *(("a", "random"), ("a", "matched"), ("b", "a"), ("b", "matched")),
        *(("c", "b"), ("c", "matched")),
    ]
    assert len(plan.family("secondary")) == math.comb(5, 2), "all pairs of the rows that ran"
    assert (plan.margin, plan.alpha, plan.looks) == (0.02, 0.1, (3,))
    assert plan.twins == (("a", "a@twin"),)


def test_two_rows_that_name_each_other_are_one_comparison() -> None:
    pair = [Entrant("a", "b", True, None, LOSSES), Entrant("b", "a", True, None, LOSSES)]
    found = declared_plan(pair, DECLARED).family("primary")
    assert [(one.row, one.control) for one in found] == [("a", "b")]


def test_one_row_alone_is_first_of_one() -> None:
    found = judge_rows([ENTRANTS[0], ENTRANTS[1]], DECLARED)
    (rank,) = found.ranks.values()
    assert (rank.row, rank.low, rank.high, rank.tier, found.outcomes) == ("a", 1, 1, 1, {})


def test_a_row_that_lost_is_worse() -> None:
    outcomes = boards_of(records(seeds=range(8)))[0].judgement.outcomes.values()
    said = {word(one) for one in outcomes}
    assert {"better", "worse"} <= said
    for one in outcomes:
        assert (word(one) == "worse") == (one.verdict == "better" and one.difference > 0)
