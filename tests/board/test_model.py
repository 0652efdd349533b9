"""A row reads its records; a board finds its dense bracket and its comparisons."""

import math
from dataclasses import replace
from statistics import fmean
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from bench.board.build import boards_of
from bench.board.model import Row, by_seed, comparison
from bench.record import Record
from bench.stats.paired import paired_t
from tests.board.synthetic import CONFIG, QUICK, record, records, replicas

GOOD = [record(QUICK[1], seed) for seed in (0, 1)]
FAILED = record(QUICK[1], 2, status="failed", loss=9.0, reason="x")


def test_a_failed_seed_gives_no_loss_and_shows_where_none_is_good() -> None:
    row = Row("mlp_gate", (FAILED, *GOOD))
    assert row.first is GOOD[0] and row.losses == {0: GOOD[0].loss, 1: GOOD[1].loss}
    assert row.shown_loss == pytest.approx(fmean(one.loss or math.nan for one in GOOD))
    alone = Row("mlp_gate", (FAILED,))
    assert alone.losses == {} and alone.shown_loss == 9.0 and alone.first is FAILED


def test_the_value_of_a_seed_is_the_mean_over_its_router_seeds() -> None:
    made = [
        *replicas(QUICK[1], 0, {0: 2.0, 2: 2.1, 4: 2.5}),
        *replicas(QUICK[1], 1, {0: 1, 2: 2, 4: 3}),
    ]
    row = Row("mlp_gate", tuple(made))
    assert row.router_seeds == (0, 2, 4)
    assert row.losses == pytest.approx({0: 2.2, 1: 2.0})
    assert row.by_seed(lambda one: float(one.row.router_seed)) == {0: 2, 1: 2}


@pytest.mark.parametrize("gone", [0, 2, 4])
def test_a_seed_without_one_of_its_router_seeds_has_no_value(gone: int) -> None:
    """No mean over those that went well: missing, failed and unmeasured ones are alike."""
    seeds = [replicas(QUICK[1], seed, {0: 2.0, 2: 2.1, 4: 2.5}) for seed in range(3)]
    lost = next(one for one in seeds[1] if one.row.router_seed == gone)
    failed = lost.model_copy(update={"status": "failed"})
    for instead in ([], [failed], [lost.model_copy(update={"loss": None})]):
        kept = [one for own in seeds for one in own if one is not lost]
        assert Row("mlp_gate", (*kept, *instead)).losses.keys() == {0, 2}


def test_a_router_seed_that_is_declared_and_never_run_is_missed() -> None:
    rows = [{"name": "mlp_gate", "router_seeds": [0, 2]}, {"name": "mod", "router_seeds": [7]}]
    made = [record(QUICK[1], 0, provenance={"config": {**CONFIG, "rows": rows}})]
    row = Row("mlp_gate", tuple(made))
    assert row.router_seeds == (0, 2) and row.losses == {}


TASK, ROUTER, SHIFT = 0.02, 0.04, 0.01
"""SDs of the paired difference over tasks and of a loss over router seeds; a true difference."""


def drawn(tasks: int, rng: np.random.Generator, count: int) -> np.ndarray:
    """Differences of two rows of three router seeds by the rule of the board, `[board, task]`."""
    cells = [SimpleNamespace(seed=task) for task in range(tasks) for _ in range(3)]
    found = np.empty((count, tasks))
    for board in range(count):
        own = rng.normal(SHIFT, TASK, tasks)[np.repeat(range(tasks), 3)]
        losses = rng.normal(2.0, ROUTER, (2, 3 * tasks)) + np.stack([own, np.zeros_like(own)])
        one, other = (
            by_seed(
                [
                    cast(Record, SimpleNamespace(cell=c, loss=x))
                    for c, x in zip(cells, row, strict=True)
                ],
                lambda record: record.loss,
                range(3),
            )
            for row in losses
        )
        found[board] = [one[task] - other[task] for task in range(tasks)]
    return found


@pytest.mark.parametrize("tasks", [3, 10])
def test_intervals_over_tasks_hold_the_spread_between_router_seeds(tasks: int) -> None:
    """The variance of a difference is TASK^2 + 2 ROUTER^2 / 3, and its t interval covers."""
    differences = drawn(tasks, np.random.default_rng(tasks), 3000)
    wanted = TASK**2 + 2 * ROUTER**2 / 3
    assert differences.var() == pytest.approx(wanted, rel=0.06)
    tests = paired_t(differences)
    covered = np.abs(tests.mean - SHIFT) <= tests.half_width(0.05)
    assert covered.mean() == pytest.approx(0.95, abs=0.013)


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
