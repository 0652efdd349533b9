"""Draw the lines of a board's figures: the look of each row, seed bands, axes and legend."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.board.drawing import NUM_SERIES, colour, legend, tip
from bench.board.model import Board
from bench.board.text import whole

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

NUM_FOCUS = 6
"""Routers drawn in colour. A reader cannot distinguish more; the others are faint."""

# Colour, dashes and marker differ together, so that rows can be distinguished in greyscale.
_DASHES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (2, 1)), (0, (6, 2, 1, 2)), "-", (0, (4, 1)))
_MARKERS = "os^DvPX*<>dph8"
# The last colour is the grey of controls.
_SERIES = {f"s{index}" for index in range(NUM_SERIES - 1)}


@dataclass(frozen=True)
class Look:
    """Colour, dashes and marker of one row."""

    colour: str = "muted"
    dashes: Any = "-"
    marker: str = "."
    faint: bool = False

    @property
    def line(self) -> dict[str, Any]:
        """Arguments for a line."""
        made = {"color": colour(self.colour), "linestyle": self.dashes}
        if self.faint:
            return {**made, "linewidth": 1, "alpha": 0.4}
        return {**made, "linewidth": 1.75, "marker": self.marker, "markersize": 6}


def series(index: int) -> Look:
    """Return the look of the series at a place in a figure. Beyond the eighth it is faint."""
    # More colours could not be told apart.
    if index >= NUM_SERIES:
        return Look(faint=True)
    return Look(f"s{index}", _DASHES[index % len(_DASHES)], _MARKERS[index])


def looks(board: Board) -> dict[str, Look]:
    """Return the look of each row: colours for the best routers, grey controls, black brackets."""
    found = {row.label: Look(faint=True) for row in (*board.other_budgets, *board.rows)}
    routers = [row.label for row in board.ranked if row.role == "ranked"][:NUM_FOCUS]
    found |= {name: series(index) for index, name in enumerate(routers)}
    controls = [row.label for row in board.ranked if row.role == "control"]
    for index, name in enumerate(controls):
        shade = "s6" if name == whole(board.matched_control) else "s7"
        found[name] = Look(shade, (0, (5, 2)), _MARKERS[(NUM_FOCUS + index) % len(_MARKERS)])
    for index, row in enumerate(board.brackets, NUM_FOCUS + len(controls)):
        found[row.label] = Look("ink", (0, (1, 2)), _MARKERS[index % len(_MARKERS)])
    return found


def draw_lines(
    data: "pd.DataFrame",
    axes: "Axes",
    styles: Mapping[str, Look],
    *,
    x: str = "x",
    y: str = "loss",
) -> None:
    """Draw a line for each row: the mean over seeds, and a band from the best to the worst.

    Args:
        data: tidy data with the columns `row`, `x` and `y`, and one line per seed or one for all.
        axes: the axes.
        styles: look of each row.
        x: column of the horizontal axis.
        y: column of the vertical axis.
    """
    import seaborn as sns

    handles: dict[str, Any] = {}
    # Faint lines come last in the data and are drawn first, below the others.
    for name in sorted(data["row"].unique(), key=lambda name: not styles[name].faint):
        look = styles[name]
        band = None if look.faint else ("pi", 100)
        where = data[data["row"] == name]
        every = max(1, where[x].nunique() // 5)
        sns.lineplot(
            where, x=x, y=y, errorbar=band, ax=axes, legend=False, markevery=every,
            err_kws={"alpha": 0.16 if look.colour in _SERIES else 0.06, "linewidth": 0},
            **look.line,
        )  # fmt: skip
        handles[name] = axes.lines[-1]
        tip(axes.lines[-1], name)
    # One entry stands for all faint lines.
    shown = [name for name in data["row"].unique() if not styles[name].faint]
    if any(look.faint for name, look in styles.items() if name in handles):
        other = next(name for name in handles if styles[name].faint)
        legend(axes, [handles[name] for name in (*shown, other)], [*shown, "others"])
    else:
        legend(axes, [handles[name] for name in shown], shown)


def late(data: "pd.DataFrame") -> tuple[float, float]:
    """Return limits of the loss without the early part, where all curves fall alike."""
    means = data.groupby(["row", "x"], sort=False)["loss"].mean()
    # The last three fifths of each curve set the limits.
    parts = [part.iloc[2 * len(part) // 5 :] for _, part in means.groupby("row")]
    low, high = min(part.min() for part in parts), max(part.max() for part in parts)
    # Seeds whose times do not overlap leave a single point.
    room = high - low or 0.02
    return low - 0.06 * room, high + 0.04 * room


def label(axes: "Axes", x: str, y: str, show: Callable[[float], str] | None = None) -> None:
    """Name the axes. `show` formats the numbers of the horizontal axis."""
    axes.set(xlabel=x, ylabel=y)
    if show:
        axes.xaxis.set_major_formatter(lambda value, _: show(value))
    axes.locator_params(axis="x", nbins=6)
