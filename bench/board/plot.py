"""Axes, line labels and the colours of rows, shared by the figures with an x and a y."""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from bench.board.model import Board
from bench.board.svg import Canvas, Figure, Scale, decimals
from bench.board.text import number, plain

NUM_FOCUS = 6
"""Routers drawn in colour.

Beyond that a reader can't tell lines apart, so the rest are faint and named on hover.
"""

_LEFT, _TOP, _BOTTOM, _LABELS = 46, 24, 40, 132


def styles(board: Board) -> dict[str, str]:
    """Row -> classes of its line.

    A colour for each of the best routers, for the controls and the brackets; "faint" for the rest.
    """
    routers = [row.name for row in board.ranked if row.role == "ranked"][:NUM_FOCUS]
    twins = [row.name for row in board.ranked if row.role == "twin"]
    controls = [row.name for row in board.ranked if row.role == "control"]
    found = {row.name: "faint" for row in (*board.ranked, *board.informed)} | dict.fromkeys(
        twins, "faint"
    )
    found |= {name: f"s{index} curve" for index, name in enumerate(routers)}
    found |= {
        name: f"s{6 if name == board.matched_control else 7} curve dash1" for name in controls
    }
    return found | {row.name: "ink curve dash2" for row in board.brackets}


class Plot:
    """A canvas with two linear axes, a grid and a right margin for the names of lines."""

    def __init__(
        self,
        title: str,
        description: str,
        x: tuple[float, float],
        y: tuple[float, float],
        labels: tuple[str, str],
        show: Callable[[float], str],
        size: tuple[int, int] = (560, 340),
    ) -> None:
        width, height = size
        self.canvas = Canvas(width, height, title, description)
        self.x = Scale(*x, _LEFT, width - _LABELS)
        self.y = Scale(*y, height - _BOTTOM, _TOP)
        self._labels: list[tuple[float, str, str]] = []
        frame = self.canvas.group()
        heights = self.y.ticks(5)
        for value in heights:
            self.canvas.line(self.x.start, self.y(value), self.x.end, self.y(value), "grid", frame)
            self.canvas.text(
                self.x.start - 7,
                self.y(value) + 4,
                number(value, decimals(heights)),
                "quiet end",
                frame,
            )
        for value in self.x.ticks(5):
            self.canvas.text(self.x(value), self.y.start + 17, show(value), "quiet mid", frame)
        self.canvas.line(self.x.start, self.y.start, self.x.end, self.y.start, "axis", frame)
        self.canvas.text((self.x.start + self.x.end) / 2, height - 6, labels[0], "quiet mid", frame)
        self.canvas.text(2, 12, labels[1], "quiet", frame)

    def curve(
        self,
        name: str,
        xs: Sequence[float],
        ys: Sequence[float],
        classes: str,
        band: tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> None:
        """One named line; what lies above the axes is cut off.

        Lines in colour get their name at the right end.
        """
        group = self.canvas.group(classes.split()[0], name)
        seen = [
            index
            for index, value in enumerate(ys)
            if value <= self.y.high and self.x.low <= xs[index] <= self.x.high
        ]
        if not seen:
            return
        if band and classes != "faint":
            low, high = ([self.y(self.y.clamp(side[index])) for index in seen] for side in band)
            pixels = [self.x(xs[index]) for index in seen]
            self.canvas.path(
                [*zip(pixels, low, strict=True), *zip(pixels[::-1], high[::-1], strict=True)],
                "band",
                group,
                closed=True,
            )
        points = [(self.x(xs[index]), self.y(ys[index])) for index in seen]
        self.canvas.path(points, " ".join(classes.split()[1:]) or "faint", group)
        if classes != "faint":
            self._labels.append((points[-1][1], name, classes.split()[0]))

    def label(self, y: float, name: str, classes: str) -> None:
        """A name for the right margin, as near to height `y` (pixels) as there is room."""
        self._labels.append((y, name, classes))

    def limit(self, value: float, text: str, axis: Literal["x", "y"] = "y") -> None:
        """A dotted line across the plot with a word on it, if it lies within."""
        scale = self.y if axis == "y" else self.x
        if not scale.low <= value <= scale.high:
            return
        if axis == "y":
            self.canvas.line(self.x.start, scale(value), self.x.end, scale(value), "limit")
            self.canvas.text(self.x.end - 4, scale(value) - 4, text, "quiet end")
        else:
            self.canvas.line(scale(value), self.y.start, scale(value), self.y.end, "limit")
            self.canvas.text(scale(value) + 4, self.y.end + 9, text, "quiet")

    def figure(self, slug: str, header: Sequence[str], data: Iterable[Sequence[str]]) -> Figure:
        """Place the names without overlap; the finished drawing."""
        gap = 13.5
        heights: list[float] = []
        for y, _, _ in sorted(self._labels):
            heights.append(max(y + 4, heights[-1] + gap if heights else self.y.end + 8))
        over = max(0.0, heights[-1] - self.y.start) if heights else 0.0
        for index in range(len(heights) - 1, -1, -1):
            ceiling = (
                heights[index + 1] - gap if index + 1 < len(heights) else heights[index] - over
            )
            heights[index] = min(heights[index], ceiling)
        for (_, name, classes), height in zip(sorted(self._labels), heights, strict=True):
            shown = plain(name, 20)
            self.canvas.text(self.x.end + 8, height, shown, f"tag {classes}")
        return self.canvas.figure(slug, header, data)
