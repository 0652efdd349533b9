"""Figures of single layers: marks against the numbers of the records."""

import numpy as np
import pytest

from bench.board.build import boards_of
from bench.figures.load_charts import loads, settling
from tests.board.synthetic import records

BOARD = boards_of(records())[0]


def test_loads_are_means_over_seeds_of_experts_and_of_upgrades() -> None:
    experts, gates = loads(BOARD)
    made = [one for one in records() if one.cell.row == "top2_moe"]
    wanted = np.mean([one.monitors[1].load[2] for one in made])
    cell = experts.data.set_index(["row", "layer", "index"]).loc[("top2_moe", 2, 2), "load"]
    assert cell == pytest.approx(wanted)
    gate = [one.monitors[0].load[1] for one in records() if one.cell.row == "mlp_gate"]
    share = gates.data.set_index(["row", "layer"]).loc[("mlp_gate", 1), "load"]
    assert share == pytest.approx(np.mean(gate))


def test_settling_has_a_line_a_layer_and_the_gradients_of_both() -> None:
    (figure,) = settling(next(row for row in BOARD.ranked if row.name == "mlp_gate"))
    parts = figure.data.groupby(["layer", "part"]).size()
    assert set(parts.index) == {
        (layer, part) for layer in (1, 2, 3) for part in ("choices", "router", "paths")
    }
    paths = figure.data[(figure.data["layer"] == 1) & (figure.data["part"] == "paths")]
    assert paths["value"].iloc[0] == pytest.approx(0.3)
    last = figure.data[figure.data["part"] == "choices"].groupby("layer")["value"].last()
    assert (last == 1).all()
