"""Columns: the values that they read from a row, against the records."""

import math
from dataclasses import replace

import pytest

from bench.board.build import boards_of
from bench.board.columns import first_columns, part_of, signed_word, verdict_columns
from bench.board.model import Row
from bench.board.verdicts import word
from bench.stats import Verdict
from tests.board.synthetic import records

MADE = records()
BOARD = boards_of(MADE)[0]
ROWS = {row.name: row for row in BOARD.rows}


def test_the_first_table_names_the_random_control_of_each_router() -> None:
    columns = {one.title: one for one in first_columns(BOARD)}
    for row in BOARD.ranked:
        chance, against = (columns[name].cell(row) for name in ("random control", "against it"))
        outcome = BOARD.outcome(row, row.first.cell.control)
        if row.role != "ranked":
            assert (chance.text, against.text) == ("–", "–")
            continue
        assert outcome is not None and chance.text == row.first.cell.control
        assert (against.value, against.verdict) == (outcome.difference, word(outcome))


@pytest.mark.parametrize(
    ("verdict", "winner", "difference", "said"),
    [
        ("better", "mod", -0.3, "better"),
        ("better", "mod", -0.009, "better ≈"),
        ("better", "random@block", 0.009, "worse ≈"),
        ("equivalent", None, 0.001, "equivalent"),
        ("equivalent", "mod", -0.001, "equivalent ≠"),
        ("inconclusive", None, 0.001, "inconclusive"),
    ],
)
def test_a_difference_inside_the_margin_is_marked_where_it_surprises(
    verdict: Verdict, winner: str | None, difference: float, said: str
) -> None:
    """The margin of the board is 0.01 nats."""
    outcome = BOARD.outcome(ROWS["mod"], "random@block")
    assert outcome is not None
    changed = replace(outcome, verdict=verdict, winner=winner, difference=difference)
    assert signed_word(BOARD, changed) == said


def test_an_interval_that_was_cut_has_a_round_bracket() -> None:
    outcome = BOARD.outcome(ROWS["mod"], "random@block")
    assert outcome is not None
    pair = ("mod", "random@block")
    for interval, wanted in (((-0.1, 0.0), "[−0.144, 0.000)"), ((-0.1, 0.02), "[−0.144, +0.029]")):
        made = replace(outcome, interval=interval, single_step=(-0.1, 0.02))
        judgement = replace(BOARD.judgement, outcomes={pair: made})
        columns = verdict_columns(replace(BOARD, judgement=judgement))
        (cell,) = [one.cell(ROWS["mod"]) for one in columns if one.title == "to random"]
        assert cell.text.endswith(wanted)


def test_an_informed_row_is_named_for_its_information_or_its_budget() -> None:
    (informed,) = BOARD.informed
    assert part_of(informed) == "side information"
    audit = informed.first.budget
    assert audit is not None
    own = informed.first.model_copy(update={"budget": audit.model_copy(update={"own": 0.6})})
    assert part_of(Row("mod@12.5", (own,))) == "own budget"


def test_wins_count_seeds() -> None:
    wins = next(one for one in verdict_columns(BOARD) if one.title == "wins")
    losses = {(one.cell.row, one.cell.seed): one.loss or math.nan for one in MADE}
    count = sum(losses["hash", seed] < losses["random@ffn", seed] for seed in range(3))
    assert wins.cell(ROWS["hash"]).text == f"{count}/3"
    assert wins.cell(ROWS["random@ffn"]).value is None
