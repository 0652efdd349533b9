"""A small SVG canvas: themed by classes, readable by a screen reader, the same bytes for the same
calls.

Inside the report a figure takes its colours from the page, light or dark; written to a file it
carries both palettes itself. A plotting library gives neither, and its bytes change with its
version.
"""

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import pairwise

from bench.board.text import plain

PALETTE: dict[str, tuple[str, str]] = {
    "surface": ("#ffffff", "#14171a"),
    "ink": ("#1a1f24", "#e7eaed"),
    "muted": ("#59636e", "#9aa4ae"),
    "rule": ("#dfe3e7", "#30363c"),
    "good": ("#0b6e4f", "#4cc89a"),
    "bad": ("#b3400a", "#ff9a62"),
    "heat": ("#1f6fb2", "#4aa3ec"),
    "s0": ("#0b62a4", "#62b0f4"),
    "s1": ("#c24a00", "#ff9b5e"),
    "s2": ("#08775a", "#43c99c"),
    "s3": ("#8a3f92", "#d79ae2"),
    "s4": ("#8a6100", "#e3bd4a"),
    "s5": ("#b02a63", "#ff8bb4"),
    "s6": ("#237f99", "#6fd0ea"),
    "s7": ("#5a5f66", "#b4bcc4"),
}
"""Name -> (light, dark).

The series differ in lightness as well as hue (after Okabe and Ito) and reach 4.5:1 on the surface.
"""

NUM_SERIES = 8


@dataclass(frozen=True)
class Figure:
    """A figure with the words and the data that stand in for it.

    Attributes:
        slug: file name without suffix.
        title: heading.
        description: how to read it; the alternative text.
        svg: the inline element.
        width: natural width, pixels.
        header: of the data table.
        data: its rows.
    """

    slug: str
    title: str
    description: str
    svg: str
    width: int
    header: tuple[str, ...] = ()
    data: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Scale:
    """A linear map from data to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Pixel of `value`."""
        span = self.high - self.low
        return self.start + (self.end - self.start) * ((value - self.low) / span if span else 0.5)

    def clamp(self, value: float) -> float:
        """`value` moved into the range shown."""
        return min(max(value, self.low), self.high)

    def ticks(self, count: int = 5) -> list[float]:
        """About `count` values of the form (1, 2, 5) x 10^k in the range."""
        span = self.high - self.low
        if not (math.isfinite(span) and span > 0):
            return [self.low]
        power = 10.0 ** math.floor(math.log10(span / count))
        step = next(factor * power for factor in (1, 2, 5, 10) if span / (factor * power) <= count)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]


def decimals(ticks: Sequence[float]) -> int:
    """Digits after the point that tell neighbouring ticks apart."""
    step = min((after - before for before, after in pairwise(ticks)), default=1.0)
    return max(0, math.ceil(-math.log10(step) - 1e-9)) if step > 0 else 0


def padded(values: Sequence[float], share: float = 0.06) -> tuple[float, float]:
    """Lowest and highest value with room around them; (0, 1) if there is none."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return 0.0, 1.0
    room = share * (max(finite) - min(finite)) or 0.05 * abs(finite[0]) or 1.0
    return min(finite) - room, max(finite) + room


class Canvas:
    """One drawing; coordinates in pixels, from the top left."""

    def __init__(self, width: float, height: float, title: str, description: str) -> None:
        self.width = round(width)
        self._title, self._description = plain(title, 200), plain(description, 1000)
        box = {
            "viewBox": f"0 0 {round(width)} {round(height)}",
            "width": str(round(width)),
            "height": str(round(height)),
        }
        self.root = ET.Element(
            "svg", {**box, "role": "img", "aria-label": self._title, "class": "figure"}
        )
        ET.SubElement(self.root, "desc").text = self._description

    def group(
        self, classes: str = "", title: str = "", parent: ET.Element | None = None
    ) -> ET.Element:
        """A group; `title` is shown on hover and read aloud."""
        group = ET.SubElement(
            self.root if parent is None else parent, "g", {"class": classes} if classes else {}
        )
        if title:
            ET.SubElement(group, "title").text = plain(title, 300)
        return group

    def line(
        self,
        x1: float,
        y1: float,
        x2: float,
        y2: float,
        classes: str,
        parent: ET.Element | None = None,
    ) -> None:
        """A straight line."""
        self._add("line", parent, x1=_px(x1), y1=_px(y1), x2=_px(x2), y2=_px(y2), classes=classes)

    def path(
        self,
        points: Sequence[tuple[float, float]],
        classes: str,
        parent: ET.Element | None = None,
        closed: bool = False,
    ) -> None:
        """A line through points, or the area they enclose."""
        steps = " ".join(
            f"{'L' if index else 'M'}{_px(x)} {_px(y)}" for index, (x, y) in enumerate(points)
        )
        self._add("path", parent, d=steps + ("Z" if closed else ""), classes=classes)

    def circle(
        self, x: float, y: float, radius: float, classes: str, parent: ET.Element | None = None
    ) -> None:
        """A dot."""
        self._add("circle", parent, cx=_px(x), cy=_px(y), r=_px(radius), classes=classes)

    def rect(
        self,
        x: float,
        y: float,
        size: tuple[float, float],
        classes: str,
        parent: ET.Element | None = None,
        opacity: float | None = None,
    ) -> None:
        """A rectangle of (width, height), its fill weakened to `opacity`."""
        extra = {} if opacity is None else {"fill-opacity": f"{opacity:.2f}"}
        self._add(
            "rect",
            parent,
            x=_px(x),
            y=_px(y),
            width=_px(size[0]),
            height=_px(size[1]),
            classes=classes,
            **extra,
        )

    def text(
        self, x: float, y: float, text: str, classes: str = "", parent: ET.Element | None = None
    ) -> None:
        """A line of text; the class says where it is anchored."""
        self._add("text", parent, x=_px(x), y=_px(y), classes=classes).text = plain(text, 120)

    def figure(self, slug: str, header: Sequence[str], data: Iterable[Sequence[str]]) -> Figure:
        """The finished drawing with the data behind it."""
        svg = ET.tostring(self.root, encoding="unicode")
        return Figure(
            slug,
            self._title,
            self._description,
            svg,
            self.width,
            tuple(header),
            tuple(tuple(line) for line in data),
        )

    def _add(
        self, tag: str, parent: ET.Element | None, *, classes: str, **attributes: str
    ) -> ET.Element:
        return ET.SubElement(
            self.root if parent is None else parent,
            tag,
            {"class": classes, **attributes} if classes else attributes,
        )


def _px(value: float) -> str:
    """Pixels to a tenth, without a negative zero."""
    return f"{round(value, 1) + 0.0:.1f}".removesuffix(".0")


@cache
def stylesheet() -> str:
    """Rules of every figure, colours as CSS variables."""
    return files("bench.board").joinpath("templates/figure.css").read_text(encoding="utf-8")


def variables(dark: bool) -> str:
    """The palette as CSS declarations."""
    return " ".join(f"--{name}: {colours[dark]};" for name, colours in PALETTE.items())


def standalone(figure: Figure) -> str:
    """The figure as a file of its own.

    Plain colours for every viewer, the dark ones where the reader prefers them.
    """

    def resolved(dark: bool) -> str:
        return re.sub(r"var\(--(\w+)\)", lambda match: PALETTE[match[1]][dark], stylesheet())

    style = f"{resolved(False)}\n@media (prefers-color-scheme: dark) {{\n{resolved(True)}}}"
    backed = figure.svg.replace(
        "<desc>",
        f'<style>\n{style}</style>\n<rect class="surface" width="100%" height="100%" /><desc>',
        1,
    )
    return backed.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1) + "\n"
