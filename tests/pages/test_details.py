"""How one router routes: shares and passages against the records."""

from statistics import fmean

import pytest

from bench.board.model import Row
from bench.board.rows import group_rows
from bench.pages.details import passage_layers, routes
from bench.record import Passage
from tests.board.synthetic import records

ROWS = {row.name: row for row in group_rows(records())}


def told(text: Passage | None) -> Row:
    first = ROWS["hash"].records[0]
    return Row("hash", (first.model_copy(update={"passage": text}),))


def test_shares_of_each_path_are_means_over_seeds() -> None:
    experts, gate = routes(ROWS["top2_moe"]), routes(ROWS["mlp_gate"])
    assert [line.name for line in gate] == [f"layer {layer}, full" for layer in (1, 2, 3)]
    assert len(experts) == 12 and experts[6].name == "layer 2, expert2"
    seen = [record.monitors[1] for record in ROWS["top2_moe"].records]
    assert experts[6].load == pytest.approx(fmean(one.load[2] for one in seen))
    assert experts[6].by_position[15] == pytest.approx(
        fmean(one.load_by_position[15][2] for one in seen)
    )
    assert experts[6].by_domain["code"] == pytest.approx(
        fmean(one.load_by_domain["code"][2] for one in seen)
    )
    assert routes(ROWS["dense"]) == [], "one path is no choice"


def test_neighbours_on_one_path_are_joined_and_control_characters_are_dots() -> None:
    made = Passage(
        domain="code",
        tokens=("a", "b\x1b", "\n", "\u202ec"),
        choices={"10": (0, 0, 1, 1), "9": (1, 0, 1, 0)},
        legend={"10": ("cheap", "full"), "9": ("cheap", "full")},
    )
    nine, ten = passage_layers(told(made))
    assert (nine.layer, ten.layer) == ("9", "10")
    assert [(run.text, run.name) for run in ten.runs] == [("ab·", "cheap"), ("\n·c", "full")]
    assert [run.classes for run in nine.runs] == ["p0", "plain", "p0", "plain"]
    assert passage_layers(told(None)) == ()
