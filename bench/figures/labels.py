"""Write the names of rows into figures: cut so that they still differ, and beside their lines."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.board.text import plain

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = 30
"""Longest name of a row in a figure, in letters."""

_LINE = 17
"""Height of a line of text in pixels."""

_LETTER = 8
"""Width of a letter in pixels."""

_AROUND = 70
"""Pixels above and below the axes of a figure, at most."""

# Places of a sample and its text to the right of the axes, as shares of their width.
_SAMPLE, _TEXT = (1.02, 1.06, 1.10), 1.12


def short_names(names: Sequence[str], limit: int = NAME) -> dict[str, str]:
    """Cut long names in their middle, as much as leaves them different.

    Rows of one study differ at their ends, such as `mlp_gate@st-gumbel-dense-budget`.
    """
    whole = {name: plain(name, 200) for name in names}
    longest = max((len(name) for name in whole.values()), default=0)
    for width in range(limit, max(limit, longest) + 1):
        found = {name: _cut(text, width) for name, text in whole.items()}
        if len(set(found.values())) == len(found):
            return found
    return whole


def _cut(name: str, limit: int) -> str:
    if len(name) <= limit:
        return name
    end = limit // 2
    return f"{name[: limit - end - 1]}…{name[-end:]}"


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Move places between 0 and 1 apart by at least `gap`, in their order, as little as needed.

    If there is no room for that, the places are even.
    """
    gap = min(gap, 1 / max(1, len(wanted) - 1))
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    placed = [0.0] * len(wanted)
    lowest = 0.0
    for index in order:
        placed[index] = max(lowest, wanted[index])
        lowest = placed[index] + gap
    highest = 1.0
    for index in reversed(order):
        placed[index] = min(highest, placed[index])
        highest = placed[index] - gap
    return placed


def name_beside(
    axes: "Axes", samples: Mapping[str, Mapping[str, Any]], heights: Mapping[str, float]
) -> None:
    """Write names to the right of the axes, near the ends of their lines.

    Args:
        axes: axes whose vertical limits are set.
        samples: name -> arguments for a line of its look.
        heights: name -> where its line ends, in data.
    """
    from matplotlib.lines import Line2D

    low, high = axes.get_ylim()
    figure = _drawing(axes)
    pixels = 72 * figure.get_figheight() - _AROUND
    wanted = [min(1.0, max(0.0, (heights[name] - low) / (high - low))) for name in samples]
    shown = short_names(list(samples))
    _widen(axes, shown.values(), NAME)
    # The text takes the drawing's own space, so that a legend covers no line.
    for (name, look), place in zip(samples.items(), spread(wanted, _LINE / pixels), strict=True):
        axes.add_line(
            Line2D(_SAMPLE, [place] * 3, transform=axes.transAxes, clip_on=False, markevery=[1],
                   **look)
        )  # fmt: skip
        axes.text(_TEXT, place, shown[name], transform=axes.transAxes, va="center", fontsize=13)


def name_lines(
    axes: "Axes", shown: Sequence[str], limit: int = NAME, *, centre: float = 0.0
) -> None:
    """Write short names at the left of a drawing with one line a row.

    Line 0 has its middle at `centre`.
    """
    _widen(axes, shown, limit)
    axes.set_yticks([place + centre for place in range(len(shown))], shown)


def _widen(axes: "Axes", shown: Iterable[str], limit: int) -> None:
    """Give names that must be longer than `limit` to differ the room that they need."""
    figure, longest = _drawing(axes), max(map(len, shown), default=0)
    figure.set_figwidth(figure.get_figwidth() + max(0, longest - limit) * _LETTER / 72)


def _drawing(axes: "Axes") -> "Figure":
    figure = axes.figure.get_figure(root=True)
    assert figure is not None
    return figure


def key_below(axes: "Axes", handles: "Sequence[Artist]", names: Sequence[str]) -> None:
    """List lines or marks in one line below all axes."""
    _drawing(axes).legend(
        list(handles), list(names), loc="outside lower center", ncols=max(1, len(names)),
        frameon=False, handlelength=2, columnspacing=1.2,
    )  # fmt: skip
