"""Turn a drawing of seaborn and matplotlib into an SVG for every reader.

The SVG names its colours as CSS variables, for light and dark pages. It has a title, a description,
a hover title on each mark, and a digest of its data.
"""

import hashlib
import io
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bench.board.text import plain

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

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

LOSS = "bits per byte"

WIDTH = 600
"""Width of a figure in pixels. On a phone, text of 13 pixels then keeps 8."""

_FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
# Style of most text, stated once at the root.
_COMMON = "fill:var(--ink);font-size:13px"
_TIP = "tip:"
_HEADING = 28


def colour(name: str) -> str:
    """Return the light colour of a name. In the SVG it becomes a variable."""
    return PALETTE[name][0]


@dataclass(frozen=True)
class Figure:
    """A figure with its text and its data.

    Attributes:
        slug: file name without suffix.
        title: heading.
        description: explanation, also the alternative text.
        data: the drawn data, tidy: one row per mark.
        draw: draws the data.
        shown: table for a page, if `data` is too long for one.
    """

    slug: str
    title: str
    description: str
    data: "pd.DataFrame"
    draw: "Callable[[pd.DataFrame], Canvas]"
    shown: "pd.DataFrame | None" = None

    @property
    def table(self) -> "pd.DataFrame":
        """The table for a page."""
        return self.data if self.shown is None else self.shown

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the text and the data, numbers to six digits, independent of any library."""
        text = self.data.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        said = "\n".join((self.slug, self.title, self.description, text))
        return hashlib.sha256(said.encode("utf-8", "replace")).hexdigest()

    @cached_property
    def element(self) -> ET.Element:
        """The drawing as an SVG element without a namespace."""
        return _polish(_svg(self.draw, self.data), self)

    def inline(self, prefix: str) -> str:
        """Return the element for an HTML page, which has the colours. `prefix` makes ids unique."""
        text = ET.tostring(self.element, encoding="unicode")
        return re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{prefix}-{self.slug}-", text)

    def standalone(self) -> str:
        """Return the figure as a separate file, with its title above and with both palettes."""
        light, dark = variables(False), variables(True)
        palette = f"svg{{{light}}}@media(prefers-color-scheme:dark){{svg{{{dark}}}}}"
        text = ET.tostring(_headed(self.element, self.title), encoding="unicode")
        head = f'<svg xmlns="http://www.w3.org/2000/svg" data-digest="{self.digest}" '
        return text.replace("<svg ", head, 1).replace(
            "<desc>", f"<style>{palette}</style><desc>", 1
        )


def digest_of(svg: str) -> str:
    """Return the digest in the text of a figure, or an empty text."""
    found = re.search(r' data-digest="([0-9a-f]{64})"', svg[:4000])
    return found[1] if found else ""


def variables(dark: bool) -> str:
    """Return the palette as CSS declarations."""
    return " ".join(f"--{name}: {colours[dark]};" for name, colours in PALETTE.items())


def tip(artist: "Artist", text: str) -> None:
    """Give a mark a hover title."""
    # matplotlib writes the id into the SVG, where `_clean` turns it into a title.
    artist.set_gid(_TIP + plain(text, 300))


def subplots(width: int, height: int, columns: int = 1, **more: Any) -> "tuple[Canvas, list[Axes]]":
    """Return an empty drawing of a size in pixels, with axes side by side."""
    from matplotlib.figure import Figure as MplFigure

    # An SVG of matplotlib has 72 units per inch.
    figure = MplFigure(figsize=(width / 72, height / 72), layout="constrained")
    figure.get_layout_engine().set(w_pad=8 / 72, h_pad=6 / 72)  # pyright: ignore
    axes = figure.subplots(1, columns, squeeze=False, **more)
    return figure, list(axes[0])


def style() -> dict[Any, Any]:
    """Return the settings of matplotlib that figures are drawn with."""
    import seaborn as sns

    own: dict[Any, Any] = {
        "font.family": "DejaVu Sans",
        "font.size": 13,
        "axes.titlesize": 13,
        "axes.labelsize": 13,
        "xtick.labelsize": 13,
        "ytick.labelsize": 13,
        "legend.fontsize": 13,
        "axes.unicode_minus": True,
        "svg.fonttype": "none",
        "svg.hashsalt": "token-routing-bench",
        "text.parse_math": False,
        "text.color": colour("ink"),
        "axes.labelcolor": colour("ink"),
        "xtick.color": colour("ink"),
        "ytick.color": colour("ink"),
        "axes.edgecolor": colour("rule"),
        "grid.color": colour("rule"),
        "figure.facecolor": colour("surface"),
        "axes.facecolor": "none",
    }
    return {**sns.axes_style("whitegrid"), **own}


def _svg(draw: "Callable[[pd.DataFrame], Canvas]", data: "pd.DataFrame") -> str:
    """Draw and save a figure. Equal data and versions give equal bytes."""
    import matplotlib as mpl

    stream = io.StringIO()
    with mpl.rc_context(style()), warnings.catch_warnings():
        # Names may have letters that this font lacks; the reader's own font has them.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        draw(data).savefig(stream, format="svg", metadata=nothing)
    return stream.getvalue()


def _headed(drawing: ET.Element, title: str) -> ET.Element:
    """Write the title above a drawing. On the page of the report it is a heading instead."""
    root = ET.Element(drawing.tag, dict(drawing.attrib))
    root.extend(drawing)
    left, _, width, height = root.get("viewBox", "0 0 1 1").split()
    root.attrib.update(
        viewBox=f"{left} {-_HEADING} {width} {float(height) + _HEADING:g}",
        height=str(int(root.get("height", "0")) + _HEADING),
    )
    # The page may be light where the reader's system is dark, so the heading has a surface.
    place = {"x": left, "y": str(-_HEADING), "width": width, "height": str(_HEADING + 1)}
    heading = ET.Element("text", x="8", y="-8", style="font-size:15px;font-weight:600")
    heading.text = plain(title, 70)
    root.extend((ET.Element("rect", place, style="fill:var(--surface)"), heading))
    return root


def _polish(text: str, figure: Figure) -> ET.Element:
    """Make matplotlib's SVG small and accessible: see the docstring of the module."""
    root = ET.fromstring(text)
    used = set(re.findall(r'(?:url\(#|href="#)([\w-]+)', text))
    for element in list(root.iter()):
        _clean(element, used)
    _flatten(root)
    box = root.get("viewBox", "0 0 1 1")
    _, _, width, height = (round(float(number)) for number in box.split())
    size = {"viewBox": box, "width": str(width), "height": str(height)}
    named = {"role": "img", "aria-label": plain(figure.title, 200), "class": "figure"}
    root.attrib.clear()
    root.attrib.update({**size, **named, "stroke-linejoin": "round", "font-family": _FONT})
    root.set("style", _COMMON)
    # Screen readers expect title and description first.
    title, words = ET.Element("title"), ET.Element("desc")
    title.text, words.text = plain(figure.title, 200), plain(figure.description, 1000)
    root[:0] = [title, words]
    return root


def _clean(element: ET.Element, used: set[str]) -> None:
    """Drop namespaces and unused ids, shorten attributes, and add a hover title."""
    element.tag = element.tag.rpartition("}")[2]
    element.tail = None
    element.text = element.text if element.tag == "text" else None
    for name in list(element.attrib):
        value = element.attrib.pop(name)
        short = name.rpartition("}")[2]
        if short == "id" and value.startswith(_TIP):
            title = ET.Element("title")
            title.text = value.removeprefix(_TIP)
            element.insert(0, title)
        elif short != "id" or value in used:
            element.set(short, _ATTRIBUTES.get(short, str)(value))
    if element.tag == "text":
        given = element.get("style", "")
        own = [one for one in given.split(";") if one not in _COMMON.split(";")]
        element.set("style", ";".join(own))
    # A rotation by nothing.
    if element.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]


def _flatten(parent: ET.Element) -> None:
    """Replace groups without attributes by their children, and drop matplotlib's metadata."""
    kept: list[ET.Element] = []
    for child in parent:
        _flatten(child)
        if child.tag == "g" and not child.attrib and child.find("title") is None:
            kept += list(child)
        elif child.tag not in ("metadata", "style"):
            kept.append(child)
    parent[:] = kept


def _rounded(value: str) -> str:
    """Round coordinates to a tenth of a pixel, and drop spaces that a path does not need."""
    found = re.sub(r"-?\d+\.\d+", lambda match: f"{float(match[0]):.1f}", value)
    found = found.replace(".0 ", " ")
    return re.sub(r"\s*([A-Za-z])\s*", r"\1", found).strip()


def _placed(value: str) -> str:
    return re.sub(r"-?\d+\.\d+", lambda match: f"{float(match[0]):.1f}", value)


def _themed(given: str) -> str:
    """Replace the colours of a style by the palette's variables, and its font by the page's."""
    for name, (light, _) in PALETTE.items():
        given = given.replace(light, f"var(--{name})")
    given = re.sub(r"font: (.*?px) [^;]*", r"font-size: \1", given)
    given = re.sub(r"font-family: [^;]*; |stroke-dashoffset: 0; ", "", given)
    return given.replace(": ", ":").replace("; ", ";")


_ATTRIBUTES: dict[str, Callable[[str], str]] = {
    "d": _rounded,
    "x": _placed,
    "y": _placed,
    "transform": _placed,
    "style": _themed,
    "fill": _themed,
}
