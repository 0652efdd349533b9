"""A row reads its records; a board finds its dense bracket and its comparisons."""

import math
from dataclasses import replace
from statistics import fmean

import pytest

from bench.board.build import boards_of
from bench.board.model import Row, comparison
from tests.board.synthetic import QUICK, record, records

GOOD = [record(QUICK[1], seed) for seed in (0, 1)]
FAILED = record(QUICK[1], 2, status="failed", loss=9.0, reason="x")


def test_a_failed_seed_gives_no_loss_and_shows_where_none_is_good() -> None:
    row = Row("mlp_gate", (FAILED, *GOOD))
    assert row.first is GOOD[0] and row.losses == {0: GOOD[0].loss, 1: GOOD[1].loss}
    assert row.shown_loss == pytest.approx(fmean(one.loss or math.nan for one in GOOD))
    alone = Row("mlp_gate", (FAILED,))
    assert alone.losses == {} and alone.shown_loss == 9.0 and alone.first is FAILED


def test_a_mean_leaves_out_what_is_missing_or_no_number() -> None:
    row = Row("mlp_gate", tuple(GOOD))
    values = {0: math.inf, 1: 4.0}
    assert row.mean(lambda one: values[one.cell.seed]) == 4.0
    assert row.mean(lambda one: None) is None


def test_the_dense_bracket_costs_what_the_dense_model_costs() -> None:
    larger = replace(QUICK[10], row="dense_wide", share=1.6)
    board = boards_of(records([*QUICK, larger]))[0]
    assert {row.name for row in board.brackets} == {"dense", "cheap", "dense_wide"}
    assert board.dense is not None and board.dense.name == "dense"
    assert boards_of(records(QUICK[:3]))[0].dense is None


def test_only_declared_comparisons_of_ranked_rows_are_found() -> None:
    board = boards_of(records())[0]
    row = next(one for one in board.ranked if one.name == "mlp_gate")
    found = board.outcome(row, "random@ffn")
    assert found is not None and (found.row, found.control) == ("mlp_gate", "random@ffn")
    assert board.outcome(row, "hash") is board.outcome(row, None) is None
    assert board.outcome(replace(row, status="mixed"), "random@ffn") is None
    assert comparison({"comparison": {"margin": 0.5}})["margin"] == 0.5
    assert comparison({})["dense_matched"] == "dense_matched"
