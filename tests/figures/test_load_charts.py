"""Figures of single layers: marks against the numbers of the records."""

import numpy as np
import pytest

from bench.board.build import boards_of
from bench.board.model import Row
from bench.figures.load_charts import loads, settling, several
from tests.board.drawn import text_faults
from tests.board.synthetic import QUICK, records

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


def with_several(*values: tuple[float, ...]) -> Row:
    """Return `adaptive_moe` with these shares in layer 2, one record each, and none in others."""
    kinds = [kind for kind in QUICK if kind.row == "adaptive_moe"]
    made = records(kinds, range(len(values)))
    changed = [
        record.model_copy(
            update={
                "monitors": tuple(
                    one.model_copy(update={"several": shares if one.layer == 2 else ()})
                    for one in record.monitors
                )
            }
        )
        for record, shares in zip(made, values, strict=True)
    ]
    return boards_of(changed)[0].rows[0]


def test_tokens_on_several_experts_are_means_over_seeds_at_each_probe() -> None:
    (figure,) = several(with_several((0.9, 0.5, 0.2), (0.7, 0.3, 0.2)))
    assert figure.data["layer"].unique().tolist() == [2]
    assert figure.data["training"].tolist() == pytest.approx([1 / 3, 2 / 3, 1])
    assert figure.data["value"].tolist() == pytest.approx([0.8, 0.4, 0.2])
    assert figure.table[["first", "last"]].to_numpy().tolist() == [pytest.approx([0.8, 0.2])]
    drawn = figure.standalone()
    assert "layer 2: 20.0 % in the end" in drawn
    assert not text_faults(figure)


@pytest.mark.parametrize("shares", [(), (0.2,), (0.2, 0.205, 0.2)])
def test_a_share_that_stays_is_not_drawn(shares: tuple[float, ...]) -> None:
    assert not several(with_several(shares, shares))
