"""Digests and colours of figures."""

import pandas as pd
import pytest

from bench.board.build import boards_of
from bench.board.charts import rank_chart
from bench.board.drawing import PALETTE, Figure
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
