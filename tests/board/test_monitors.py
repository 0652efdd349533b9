"""Monitors of routing: figures of the load against scipy, means against loops, and older records
that lack the newer ones.
"""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bench.board.build import boards_of
from bench.board.cost_columns import cost_columns
from bench.board.figures import pareto
from bench.board.load_charts import settling
from bench.board.monitors import (
    dead_paths,
    layer_table,
    load_cv,
    max_violation,
    monitor_columns,
    purity,
)
from bench.board.pages import render_leaderboard
from bench.record import Record
from tests.board.synthetic import records

NEWER = (
    "margin",
    "max_logit",
    "dropped",
    "saturation",
    "router_gradient",
    "paths_gradient",
    "utility_correlation",
)
MADE = records()


def older(record: Record) -> Record:
    """The record as it was before the newer monitors and the timing."""
    data: dict[str, Any] = record.model_dump(exclude={"speed"})
    data["monitors"] = [
        {name: value for name, value in layer.items() if name not in NEWER}
        for layer in data["monitors"]
    ]
    return Record.model_validate(data)


@given(st.lists(st.floats(0.01, 1), min_size=3, max_size=16))
def test_balance_is_scipys_coefficient_of_variation(load: list[float]) -> None:
    assert load_cv(load) == pytest.approx(float(stats.variation(load)), abs=1e-9)
    assert max_violation(load) == pytest.approx(float(np.max(load) / np.mean(load)) - 1, abs=1e-9)
    assert dead_paths(load) == 0


def test_dead_paths_take_next_to_nothing() -> None:
    assert dead_paths([0.5, 0.0, 0.49, 0.002]) == 2  # an even share is 0.248
    assert dead_paths([0.5, 0.01, 0.49]) == 0
    assert dead_paths([1.0]) is None
    assert load_cv([0.9, 0.1]) is None, "a gate is not meant to be balanced"
    assert load_cv([0.0, 0.0, 0.0]) is None


def test_columns_are_means_over_layers_and_seeds() -> None:
    board = boards_of(MADE)[0]
    columns = {column.title: column for column in monitor_columns(board)}
    assert "utility correlation" not in columns, "nothing was measured"
    row = next(row for row in board.ranked if row.name == "adaptive_moe")
    layers = [layer for record in row.records for layer in record.monitors]
    assert len(layers) == 9
    wanted = {
        "load CV": np.mean([np.std(layer.load) / np.mean(layer.load) for layer in layers]),
        "margin": np.mean([layer.margin for layer in layers if layer.margin is not None]),
        "saturation": np.mean([layer.saturation[0] for layer in layers]),
        "router gradient": np.mean([layer.router_gradient[-1] for layer in layers]),
    }
    assert {name: columns[name].cell(row).value for name in wanted} == pytest.approx(wanted)


def test_each_layer_has_its_line() -> None:
    board = boards_of(MADE)[0]
    row = next(row for row in board.ranked if row.name == "mlp_gate")
    header, lines = layer_table(row)
    assert [line[0] for line in lines] == ["1", "2", "3"]
    churn = np.mean(
        [record.monitors[1].churn for record in row.records if record.monitors[1].churn is not None]
    )
    assert lines[1][header.index("churn")] == f"{100 * churn:.1f} %"
    assert "load CV" not in header
    assert (
        "router gradient"
        not in layer_table(next(row for row in board.ranked if row.name == "hash"))[0]
    )


def test_shared_experts_count_in_no_balance_and_several_has_a_first_and_a_last_value() -> None:
    shared = {"paths": ("expert_shared0", "a", "b", "c"), "load": (1.0, 0.4, 0.4, 0.4)}
    shared |= {"always": ("expert_shared0",), "several": (0.9, 0.5, 0.2)}
    made = [
        record.model_copy(
            update={"monitors": tuple(layer.model_copy(update=shared) for layer in record.monitors)}
        )
        for record in MADE
        if record.cell.row == "adaptive_moe"
    ]
    row = boards_of(made)[0].rows[0]
    header, lines = layer_table(row)
    shown = dict(zip(header, lines[0], strict=True))
    assert shown["MaxVio"] == "0.00" and shown["load CV"] == "0.000"
    assert (shown["several at first"], shown["several in the end"]) == ("90.0 %", "20.0 %")


def test_older_records_lose_no_board_and_gain_no_column() -> None:
    old = boards_of([older(record) for record in MADE])[0]
    assert {column.title for column in monitor_columns(old)} == {
        "load CV",
        "MaxVio",
        "purity",
        "dead",
        "entropy",
        "churn",
        "domain information",
    }
    assert all(not settling(row) for row in old.rows)
    titles = {column.title for column in cost_columns(boards_of(MADE)[0])} - {
        column.title for column in cost_columns(old)
    }
    assert titles == {"latency, µs"}
    assert "latency" not in render_leaderboard([old], command="c")


def test_the_frontier_is_of_measured_inference_where_every_row_has_it() -> None:
    def labels(made: list[Record]) -> str:
        return pareto(boards_of(made)[0])[1].title.removeprefix("Loss against ")

    assert labels(MADE) == "measured time a token of inference, µs"
    assert (
        labels([older(MADE[0]), *MADE[1:3], *MADE[3:]]) == "measured time a token of inference, µs"
    )  # two of its seeds have it
    assert labels([*map(older, MADE[:3]), *MADE[3:]]) == "measured time a training token, µs"


def test_purity_is_the_share_of_the_most_frequent_domain_of_each_path() -> None:
    """Two domains of 100 tokens: of the 120 choices of path a, 90 are of the first domain."""
    layer = next(record for record in MADE if record.monitors).monitors[0]
    loads = {"first": (0.9, 0.1, 0.0), "second": (0.3, 0.3, 0.4)}
    layer = layer.model_copy(
        update={"paths": ("a", "b", "c"), "always": (), "load_by_domain": loads}
    )
    assert purity(layer) == pytest.approx((90 + 30 + 40) / 200)
    gate = {"paths": ("cheap", "full"), "load_by_domain": {"first": (1, 0), "second": (0, 1)}}
    assert purity(layer.model_copy(update=gate)) is None
