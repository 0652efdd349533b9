"""Names in figures: short, different, and never over each other."""

import dataclasses
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.board.build import boards_of
from bench.figures.board_figures import board_figures
from bench.figures.labels import NAME, short_names, spread
from bench.figures.load_charts import settling
from tests.board.drawn import text_faults
from tests.board.synthetic import QUICK, many, records

LONG = "partially_supervised_{}_router_with_a_name_of_many_words@dense-budget"


@given(st.lists(st.text(st.sampled_from("ab@-"), min_size=1, max_size=60), unique=True))
def test_short_names_differ_and_keep_both_ends(names: list[str]) -> None:
    found = short_names(names)
    assert len(set(found.values())) == len(names)
    for name, shown in found.items():
        head, cut, tail = shown.partition("…")
        assert name == shown if not cut else name.startswith(head) and name.endswith(tail)


def test_names_are_cut_only_as_far_as_they_differ() -> None:
    names = ["mlp_gate@straight-through-dense-budget", "mlp_gate@st-gumbel-dense-budget", "mod"]
    assert max(map(len, short_names(names).values())) == NAME
    # At ten letters both end in the same five and begin with the same four.
    assert len(set(short_names(names, 10).values())) == 3


@given(st.lists(st.floats(0, 1), max_size=30), st.floats(0.001, 0.2))
def test_spread_keeps_the_order_and_the_gap_in_the_frame(wanted: list[float], gap: float) -> None:
    placed = spread(wanted, gap)
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in placed)
    room = min(gap, 1 / max(1, len(wanted) - 1))
    ordered = sorted(zip(wanted, placed, strict=True))
    assert all(b - a >= room - 1e-9 for a, b in pairwise(sorted(placed)))
    assert [place for _, place in ordered] == sorted(placed)


def test_names_with_room_stay_at_their_heights() -> None:
    assert spread([0.9, 0.1, 0.5], 0.2) == [0.9, 0.1, 0.5]


@pytest.mark.slow
@pytest.mark.parametrize("rows", [3, 12, 40])
def test_no_text_of_a_board_lies_over_another_or_is_cut(rows: int) -> None:
    beside = [kind for kind in QUICK if kind.role in ("twin", "informed")]
    experts = {"paths": tuple(f"expert{index}" for index in range(8)), "control": "random@experts"}
    made = [
        dataclasses.replace(kind, row=LONG.format(index), **(experts if index % 3 == 0 else {}))
        if kind.role == "ranked"
        else kind
        for index, kind in enumerate((*many(rows), *beside))
    ]
    (board,) = boards_of(records(made, [0, 1]))
    figures = [*board_figures(board), *settling(board.ranked[0])]
    assert len(figures) >= 10
    assert {figure.slug: faults for figure in figures if (faults := text_faults(figure))} == {}
