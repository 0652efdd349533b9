"""Read marks back from a drawn figure."""

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from itertools import combinations

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.text import Text

from bench.figures.drawing import Figure, style


def titled(figure: Figure) -> dict[str, ET.Element]:
    """Hover title -> the group of its mark, the last one of a title."""
    groups = figure.element.iter("g")
    return {title: group for group in groups if (title := group.findtext("title")) is not None}


def centre(group: ET.Element) -> float:
    """Where along x a marker lies."""
    use = next(group.iter("use"))
    return float(use.attrib["x"])


def text_faults(figure: Figure) -> list[str]:
    """Draw a figure; name the texts that overlap, and those that leave the drawing."""
    with mpl.rc_context(style()):
        canvas = figure.draw(figure.data)
        renderer = FigureCanvasAgg(canvas).get_renderer()
        canvas.draw(renderer)
        found = [
            (text.get_text(), text.get_window_extent(renderer), text.get_rotation())
            for text in _texts(canvas)
            if text.get_visible() and text.get_text().strip()
        ]
    # The box of a slanted text is larger than the text.
    level = [(name, box) for name, box, rotation in found if rotation in (0, 90)]
    faults = [
        f"{one} overlaps {other}"
        for (one, left), (other, right) in combinations(level, 2)
        if left.shrunk(0.96, 0.8).overlaps(right.shrunk(0.96, 0.8))
    ]
    whole = canvas.bbox.padded(1)
    outside = [name for name, box, _ in found if not whole.contains(box.x0, box.y0)
               or not whole.contains(box.x1, box.y1)]  # fmt: skip
    return faults + [f"{name} is cut" for name in outside]


def _texts(canvas: Canvas) -> Iterator[Text]:
    """Yield the texts that are drawn: ticks outside the limits are not."""
    for legend in canvas.legends:
        yield from legend.get_texts()
    for axes in canvas.axes:
        yield from (*axes.texts, axes.title)
        children = axes.child_axes
        for one in (axes, *children):
            for axis in (one.xaxis, one.yaxis):
                yield axis.label
                low, high = sorted(axis.get_view_interval())
                for tick in axis.get_major_ticks():
                    if low <= tick.get_loc() <= high:
                        yield from (tick.label1, tick.label2)
