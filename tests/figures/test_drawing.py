"""Digests, colours and headings of figures."""

import re
import xml.etree.ElementTree as ET

import pandas as pd
import pytest

from bench.board.build import boards_of
from bench.figures.board_figures import loss_curves
from bench.figures.charts import forest, rank_chart
from bench.figures.drawing import PALETTE, Figure
from bench.figures.pareto import pareto
from tests.board.synthetic import records

BOARD = boards_of(records())[0]


def test_the_digest_changes_with_the_data_and_not_with_the_drawing() -> None:
    (figure,) = rank_chart(BOARD)

    def draw(data: pd.DataFrame):
        raise AssertionError("a digest needs no drawing")

    same = Figure(figure.slug, figure.title, figure.description, figure.data, draw)
    assert same.digest == figure.digest
    moved = figure.data.assign(low=figure.data["low"] + 1)
    other = Figure(figure.slug, figure.title, figure.description, moved, draw)
    assert other.digest != figure.digest


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    return sum(
        w * (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4)
        for w, c in zip((0.2126, 0.7152, 0.0722), parts, strict=True)
    )


@pytest.mark.parametrize("name", [name for name in PALETTE if name not in ("surface", "rule")])
@pytest.mark.parametrize("dark", [0, 1])
def test_colours_reach_the_contrast_for_text(name: str, dark: int) -> None:
    pair = sorted(luminance(PALETTE[key][dark]) for key in (name, "surface"))
    assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5


@pytest.mark.parametrize("dark", [0, 1])
def test_numbers_can_be_read_on_the_strongest_heat(dark: int) -> None:
    heat, ink, surface = (PALETTE[name][dark] for name in ("heat", "ink", "surface"))
    mixed = "#" + "".join(
        f"{round(0.6 * int(heat[at : at + 2], 16) + 0.4 * int(surface[at : at + 2], 16)):02x}"
        for at in (1, 3, 5)
    )
    pair = sorted((luminance(mixed), luminance(ink)))
    assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5


def test_a_file_has_its_title_above_on_a_surface_and_a_page_has_it_as_a_heading() -> None:
    (figure,) = rank_chart(BOARD)
    root = ET.fromstring(figure.standalone())
    space = "{http://www.w3.org/2000/svg}"
    _, top, _, height = map(float, root.attrib["viewBox"].split())
    texts = {
        one.text: float(one.attrib["y"]) for one in root.iter(f"{space}text") if "y" in one.attrib
    }
    assert top < texts[figure.title] < 0
    rect = root.find(f"{space}rect")
    assert rect is not None and float(rect.attrib["y"]) == top
    assert rect.attrib["style"] == "fill:var(--surface)"
    inside = figure.element.attrib["viewBox"].split()
    assert height - float(inside[3]) == -top
    assert figure.title not in [one.text for one in figure.element.iter("text")]


def test_a_figure_fits_a_phone() -> None:
    """Text keeps 7 pixels in the 358 that a phone of 390 leaves."""
    for figure in (*rank_chart(BOARD), *forest(BOARD), *loss_curves(BOARD), *pareto(BOARD)):
        width = float(figure.element.attrib["width"])
        sizes = re.findall(r"font-size:(\d+)px", ET.tostring(figure.element, encoding="unicode"))
        assert min(map(int, sizes)) * 358 / width >= 7
