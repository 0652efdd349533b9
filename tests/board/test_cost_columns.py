"""Columns of cost and audit: their values, against the records."""

from statistics import fmean

import pytest

from bench.board.build import boards_of
from bench.board.cost_columns import audit_columns, cost_columns
from bench.board.model import Row
from tests.board.synthetic import QUICK, records, replicas

MADE = records()
BOARD = boards_of(MADE)[0]
ROWS = {row.name: row for row in BOARD.rows}


def test_costs_are_means_over_the_records() -> None:
    columns = {one.title: one for one in cost_columns(BOARD)}
    own = [one for one in MADE if one.cell.row == "mlp_gate"]
    flops, speed = own[0].flops, [one.speed.forward_us_per_token for one in own if one.speed]
    assert flops is not None
    row = ROWS["mlp_gate"]
    assert columns["of dense"].cell(row).value == pytest.approx(flops.active / flops.dense)
    assert columns["executed"].cell(row).value == pytest.approx(flops.executed / flops.dense)
    assert columns["latency, µs"].cell(row).value == pytest.approx(fmean(speed))
    assert columns["training FLOPs"].cell(row).value == pytest.approx(1.51e12)
    assert columns["memory"].cell(row).text == f"{410 + 90 * 0.62:,.0f} MB"


def test_the_audit_says_over_how_many_router_seeds_a_seed_is_a_mean() -> None:
    (column,) = [one for one in audit_columns(BOARD) if one.title == "seeds"]
    assert column.cell(ROWS["mlp_gate"]).text == "0-2"
    made = [one for seed in range(2) for one in replicas(QUICK[1], seed, {0: 2.0, 2: 2.1})]
    assert column.cell(Row("mlp_gate", tuple(made))).text == "0-1, 2 router seeds each"


def test_the_audit_links_papers_and_stamps_causality() -> None:
    columns = {one.title: one for one in audit_columns(BOARD)}
    row = ROWS["mlp_gate"]
    assert columns["paper"].cell(row).link == "https://arxiv.org/abs/2604.17228"
    assert columns["causality"].cell(row).text == f"pass ({3 * 256})"
    cell = row.records[0].cell.model_copy(update={"paper": "javascript:alert(1)"})
    other = Row("x", (row.records[0].model_copy(update={"cell": cell, "causality": None}),))
    assert columns["paper"].cell(other).link is None and columns["paper"].cell(other).foreign
    assert columns["causality"].cell(other).value is None
