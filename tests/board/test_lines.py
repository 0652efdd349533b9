"""Lines of figures: looks that can be distinguished, and room for the curves."""

from bench.board.build import boards_of
from bench.board.drawing import NUM_SERIES
from bench.board.figures import loss_curves
from bench.board.lines import NUM_FOCUS, late, looks, series
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
    shown = [look.marker for look in looks(BOARD).values() if not look.faint]
    assert len(shown) == len(set(shown)) >= 8
    lines = [(look.dashes, look.marker) for look in map(series, range(NUM_SERIES))]
    assert len(set(lines)) == NUM_SERIES


def test_curves_of_times_that_do_not_overlap_have_room():
    """A second seed that was slower from its first probe on leaves a single point of time."""
    slow = record(QUICK[1], 1)
    later = tuple(p.model_copy(update={"seconds": p.seconds + 1000}) for p in slow.curve)
    made = [record(QUICK[1], 0), slow.model_copy(update={"curve": later})]
    (seconds,) = [one for one in loss_curves(boards_of(made)[0]) if one.slug == "loss-seconds"]
    low, high = late(seconds.data)
    assert low < seconds.data.groupby("x")["loss"].mean().min() < high
    assert "<svg" in seconds.inline("a")
