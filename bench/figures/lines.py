"""Draw the lines of a board's figures: the look of each row, seed bands, axes and names."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.board.model import Board
from bench.board.text import quantity, whole
from bench.figures.drawing import colour, tip
from bench.figures.labels import name_beside

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

NUM_FOCUS = 6
"""Routers drawn in colour among many lines. The others are faint."""

NUM_BANDS = 4
"""Lines that may have a band of seeds. More bands would cover each other."""

NUM_LOOKS = 12
"""Series that can be distinguished, by colour, dashes and marker together."""

# Colour, dashes and marker differ together, so that rows can be distinguished in greyscale.
_DASHES: tuple[Any, ...] = (
    "-",
    (0, (6, 2)),
    (0, (2, 1)),
    (0, (6, 2, 1, 2)),
    (0, (12, 3)),
    (0, (8, 2, 2, 2, 2, 2)),
)
_MARKERS = "os^DvP<>dph8"
# Rows beside the routers keep their marks on every board.
_BRACKETS, _CONTROLS = "s^Dvp", "XH"


@dataclass(frozen=True)
class Look:
    """Colour, dashes and marker of one row.

    Attributes:
        colour: name in the palette.
        dashes: dash pattern of matplotlib.
        marker: marker of matplotlib.
        faint: the row stands in the background, among the "others".
        hollow: the marker is not filled.
        group: name of all rows of this look, if they share one.
    """

    colour: str = "muted"
    dashes: Any = "-"
    marker: str = "."
    faint: bool = False
    hollow: bool = False
    group: str = ""

    @property
    def line(self) -> dict[str, Any]:
        """Arguments for a line."""
        made = {"color": colour(self.colour), "linestyle": self.dashes}
        if self.faint:
            return {**made, "linewidth": 1, "alpha": 0.45}
        return {**made, **self._mark(6.5), "linewidth": 1.75}

    @property
    def point(self) -> dict[str, Any]:
        """Arguments for a single point."""
        made = {"color": colour(self.colour), "linestyle": "none"}
        return {**made, **self._mark(6 if self.faint else 9), "alpha": 0.5 if self.faint else 0.9}

    def _mark(self, size: float) -> dict[str, Any]:
        edge, face = self.colour if self.hollow else "surface", "surface" if self.hollow else ""
        return {
            "marker": "o" if self.faint else self.marker,
            "markersize": size,
            "markeredgewidth": 1.5 if self.hollow else 0.75,
            "markeredgecolor": colour(edge),
            "markerfacecolor": colour(face or self.colour),
        }


OTHERS = Look(faint=True, group="others")
_RANDOM = Look("s7", (0, (3, 2)), "o", hollow=True, group="random, same paths")


def series(index: int) -> Look:
    """Return the look of the series at a place in a figure. Beyond the twelfth it is faint."""
    if index >= NUM_LOOKS:
        return OTHERS
    # The second round through the colours has other dashes.
    turn = index + index // len(_DASHES)
    return Look(f"s{index % 6}", _DASHES[turn % len(_DASHES)], _MARKERS[index])


def looks(board: Board, focus: int = NUM_FOCUS) -> dict[str, Look]:
    """Return the look of each row, the same in all figures of a board.

    The best `focus` routers have colours. Random controls share one look, brackets are black.
    """
    found = {row.label: OTHERS for row in (*board.other_budgets, *board.rows)}
    routers = [row for row in board.ranked if row.role == "ranked"]
    found |= {row.label: series(index) for index, row in enumerate(routers[:focus])}
    matched = whole(board.matched_control)
    random = {whole(row.control) for row in routers if row.control} - {matched}
    controls = [row.label for row in board.ranked if row.role == "control"]
    found |= {name: _RANDOM for name in controls if name in random}
    apart = [name for name in controls if name not in random and name != matched]
    for name, marker in zip((matched, *apart), _CONTROLS + _MARKERS[::-1], strict=False):
        if name in found:
            shade, dashes = ("s6", (0, (5, 2))) if name == matched else ("s7", (0, (9, 2)))
            found[name] = Look(shade, dashes, marker)
    for index, row in enumerate(board.brackets):
        marker = _BRACKETS[index % len(_BRACKETS)]
        found[row.label] = Look("ink", (0, (1, 2)), marker, hollow=True)
    return found


def draw_lines(
    data: "pd.DataFrame",
    axes: "Axes",
    styles: Mapping[str, Look],
    *,
    x: str = "x",
    y: str = "loss",
    bands: bool = True,
    right: float | None = None,
    limits: tuple[float, float] | None = None,
) -> None:
    """Draw and name a line for each row: the mean over seeds, and a band from best to worst.

    Args:
        data: tidy data with the columns `row`, `x` and `y`, and one line per seed or one for all.
        axes: the axes.
        styles: look of each row.
        x: column of the horizontal axis.
        y: column of the vertical axis.
        bands: draw the bands, if there are at most `NUM_BANDS` lines.
        right: where the frame ends, if lines go on.
        limits: of the vertical axis.
    """
    import numpy as np
    import seaborn as sns

    names = list(data["row"].unique())
    bands = bands and len(names) <= NUM_BANDS
    ends: dict[str, float] = {}
    # Faint lines come last in the data and are drawn first, below the others.
    for name in sorted(names, key=lambda name: not styles[name].faint):
        where = data[data["row"] == name]
        every = max(1, where[x].nunique() // 5)
        sns.lineplot(
            where, x=x, y=y, errorbar=("pi", 100) if bands else None, ax=axes, legend=False,
            markevery=every, err_kws={"alpha": 0.14, "linewidth": 0}, **styles[name].line,
        )  # fmt: skip
        tip(axes.lines[-1], name)
        mean = where.groupby(x)[y].mean()
        last = mean.index[-1] if right is None else min(right, mean.index[-1])
        ends[name] = float(np.interp(last, mean.index, mean))
    axes.set_ylim(limits or axes.get_ylim())
    if right is not None:
        axes.set_xlim(0, right)
    name_rows(axes, {name: styles[name].line for name in names}, styles, ends)


def name_rows(
    axes: "Axes",
    samples: Mapping[str, Mapping[str, Any]],
    styles: Mapping[str, Look],
    heights: Mapping[str, float],
) -> None:
    """Name rows beside the axes. Rows that share a look have one name, in their middle."""
    groups: dict[str, list[str]] = {}
    for name in samples:
        groups.setdefault(styles[name].group or name, []).append(name)
    name_beside(
        axes,
        {group: samples[members[0]] for group, members in groups.items()},
        {group: _mean(heights[name] for name in members) for group, members in groups.items()},
    )


def _mean(values: Iterable[float]) -> float:
    every = list(values)
    return sum(every) / len(every)


def late(data: "pd.DataFrame") -> tuple[float, float]:
    """Return limits of the loss without the early part, where all curves fall alike."""
    means = data.groupby(["row", "x"], sort=False)["loss"].mean()
    # The last three fifths of each curve set the limits.
    parts = [part.iloc[2 * len(part) // 5 :] for _, part in means.groupby("row")]
    low, high = min(part.min() for part in parts), max(part.max() for part in parts)
    # Seeds whose times do not overlap leave a single point.
    room = high - low or 0.02
    return low - 0.06 * room, high + 0.04 * room


def tick(value: float) -> str:
    """Write the number of a tick: `50G`, `1T`, `2.5T`."""
    text = quantity(value)
    return re.sub(r"\.?0+(?=[a-zA-Z]?$)", "", text) if "." in text else text


def label(axes: "Axes", x: str, y: str, show: Callable[[float], str] | None = None) -> None:
    """Name the axes. `show` formats the numbers of the horizontal axis."""
    axes.set(xlabel=x, ylabel=y)
    if show:
        axes.xaxis.set_major_formatter(lambda value, _: show(value))
    if axes.get_xscale() == "linear":
        axes.locator_params(axis="x", nbins=5)
