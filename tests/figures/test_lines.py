"""Lines of figures: looks that can be distinguished, and room for the curves."""

from itertools import pairwise

import pandas as pd
import pytest

from bench.board.build import boards_of
from bench.figures.board_figures import loss_curves
from bench.figures.drawing import subplots
from bench.figures.lines import (
    NUM_BANDS,
    NUM_FOCUS,
    NUM_LOOKS,
    OTHERS,
    Look,
    draw_lines,
    late,
    looks,
    series,
    tick,
)
from tests.board.drawn import titled
from tests.board.synthetic import QUICK, many, record, records

BOARD = boards_of(records())[0]


def test_few_rows_are_coloured_and_every_line_has_a_hover_title() -> None:
    board = boards_of(records(many(30)))[0]
    figure = loss_curves(board)[0]
    assert set(titled(figure)) == {row.name for row in (*board.ranked, *board.brackets)}
    focus = [name for name, look in looks(board).items() if not look.faint]
    routers = [row.name for row in board.ranked if row.role == "ranked"]
    assert [name for name in routers if name in focus] == routers[:NUM_FOCUS]


def test_rows_differ_without_colour() -> None:
    named = {look.group or name: look for name, look in looks(BOARD, NUM_LOOKS).items()}
    marks = {(look.marker, look.hollow) for look in named.values() if not look.faint}
    assert len(marks) == len([look for look in named.values() if not look.faint]) >= 8
    lines = [series(place) for place in range(NUM_LOOKS)]
    assert len({look.marker for look in lines}) == NUM_LOOKS
    assert len({(look.colour, look.dashes) for look in lines}) == NUM_LOOKS
    # Neighbours in a figure differ in their dashes, and the first six all do.
    assert len({look.dashes for look in lines[:NUM_FOCUS]}) == NUM_FOCUS
    assert all(one.dashes != next.dashes for one, next in pairwise(lines))


def test_a_row_has_one_look_and_random_controls_share_a_name() -> None:
    few, all_of_them = looks(BOARD), looks(BOARD, NUM_LOOKS)
    assert all(look in (all_of_them[name], OTHERS) for name, look in few.items())
    random = {row.control for row in BOARD.ranked if row.role == "ranked" and row.control}
    groups = {all_of_them[name].group for name in random - {BOARD.matched_control}}
    assert groups == {"random, same paths"}
    assert all(all_of_them[row.label].hollow for row in BOARD.brackets)
    assert not all_of_them[BOARD.matched_control].group


@pytest.mark.parametrize("rows", [NUM_BANDS, NUM_BANDS + 1])
def test_bands_are_drawn_for_few_lines_only(rows: int) -> None:
    points = [(f"row{row}", x, seed, row + seed / 9) for row in range(rows)
              for x in (0, 1) for seed in (0, 1)]  # fmt: skip
    data = pd.DataFrame(points, columns=["row", "x", "seed", "loss"])
    _, (axes,) = subplots(600, 400)
    draw_lines(data, axes, {name: series(at) for at, name in enumerate(data["row"].unique())})
    assert len(axes.collections) == (rows if rows <= NUM_BANDS else 0)


def test_a_name_stands_at_the_end_of_its_line_inside_the_frame() -> None:
    data = pd.DataFrame({"row": ["a"] * 3 + ["b"] * 2, "x": [0, 1, 9, 0, 1],
                         "loss": [3.0, 2.0, 0.0, 3.0, 2.6]})  # fmt: skip
    _, (axes,) = subplots(600, 400)
    draw_lines(data, axes, {"a": Look(), "b": Look()}, right=5, limits=(0, 4))
    places = {text.get_text(): text.get_position()[1] for text in axes.texts}
    # The line of a goes on beyond the frame; at 5 it is halfway from 2 to 0.
    assert places == {"a": pytest.approx(1 / 4), "b": pytest.approx(2.6 / 4)}


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (5e10, "50G"), (1e12, "1T"), (2.5e12, "2.5T"), (12, "12"), (1e5, "100k")],
)
def test_ticks_have_no_empty_digits(value: float, text: str) -> None:
    assert tick(value) == text


def test_curves_of_times_that_do_not_overlap_have_room():
    """A second seed that was slower from its first probe on leaves a single point of time."""
    slow = record(QUICK[1], 1)
    later = tuple(p.model_copy(update={"seconds": p.seconds + 1000}) for p in slow.curve)
    made = [record(QUICK[1], 0), slow.model_copy(update={"curve": later})]
    (seconds,) = [one for one in loss_curves(boards_of(made)[0]) if one.slug == "loss-seconds"]
    low, high = late(seconds.data)
    assert low < seconds.data.groupby("x")["loss"].mean().min() < high
    assert "<svg" in seconds.inline("a")
