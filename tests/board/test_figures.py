"""Figures of a board: marks against their numbers, bytes, words."""

import math
import re
import xml.etree.ElementTree as ET
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from bench.board import write_figures
from bench.board.build import boards_of
from bench.board.drawing import Figure, digest_of
from bench.board.figures import board_figures, loss_curves, pareto, sensitivity, spend_sweep
from tests.board.synthetic import QUICK, Kind, record, records, swept
from tests.board.test_pages import NASTY

BOARD = boards_of(records())[0]


@cache
def figures() -> list[Figure]:
    """The figures of the board. Each draws itself once."""
    return board_figures(BOARD)


def test_the_legend_lies_beside_the_lines() -> None:
    lines = {one.slug for one in (*loss_curves(BOARD), *spend_sweep(BOARD), *pareto(BOARD))}
    for figure in (one for one in figures() if one.slug in lines):
        clip = next(figure.element.iter("clipPath")).find("rect")
        assert clip is not None
        right = float(clip.attrib["x"]) + float(clip.attrib["width"])
        names = {row.name for row in BOARD.ranked}
        texts = [one for one in figure.element.iter("text") if one.text in names]
        assert len(texts) > 2
        assert all(float(one.attrib["x"]) > right for one in texts)


def test_a_curve_is_the_mean_over_seeds_at_its_end() -> None:
    figure = loss_curves(BOARD)[0]
    ends = [one.curve[-1].loss for one in records() if one.cell.row == "hash"]
    shown = figure.table.set_index("row")
    assert shown.loc["hash", "loss"] == pytest.approx(np.mean(ends) / math.log(2))


def test_the_front_joins_no_rows_of_equal_cost() -> None:
    for figure in pareto(BOARD):
        best = figure.data[figure.data["front"]].sort_values("cost")
        assert (best["cost"].to_numpy()[1:] > 1.0099 * best["cost"].to_numpy()[:-1]).all()
        assert (np.diff(best["loss"]) < 0).all()
        for one in figure.data.to_dict("records"):
            beaten = (best["cost"] <= one["cost"] * 1.011) & (best["loss"] <= one["loss"])
            assert beaten.any(), one["row"]
    flops = pareto(BOARD)[0].data
    assert flops[flops["cost"].between(0.6, 0.64)]["front"].sum() == 1, "the best at the budget"


def test_sensitivity_is_drawn_where_it_was_measured() -> None:
    assert not sensitivity(BOARD)
    sweep = [swept("hash", factor, loss) for factor, loss in ((0.5, 2.3), (1, 2.1), (2, 2.2))]
    (figure,) = sensitivity(boards_of([*records(), *sweep])[0])
    assert figure.data["factor"].tolist() == [0.5, 1, 2]
    assert figure.data["above"].tolist() == pytest.approx(
        [0.2 / math.log(2), 0, 0.1 / math.log(2)], abs=1e-9
    )


def test_files_are_the_same_bytes_and_load_nothing(tmp_path: Path) -> None:
    made = records(QUICK[:6], [0, 1])
    first, second = (
        write_figures(boards_of(order), tmp_path / name)
        for name, order in (("a", made), ("b", made[::-1]))
    )
    assert [path.name for path in first] == [path.name for path in second]
    assert len(first) >= 11
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
        text = one.read_text()
        assert not re.findall(r"(?:src=|url\((?!#)|@import|href=\"[^#])", text)
        assert set(re.findall(r"https?://[^\"]*", text)) == {"http://www.w3.org/2000/svg"}
        assert not re.findall(r"#[0-9a-f]{6}", text.split("</style>")[1]), "a colour has no theme"


@pytest.mark.usefixtures("undrawn")
def test_figures_that_the_records_no_longer_give_are_removed(tmp_path: Path) -> None:
    for stale in ("stale.svg", "b25/stale.svg", "kept.txt"):
        (tmp_path / stale).parent.mkdir(exist_ok=True)
        (tmp_path / stale).write_text("old", encoding="utf-8")
    made = write_figures(boards_of(records(QUICK[:3], [0, 1])), tmp_path)
    assert set(tmp_path.rglob("*.*")) == {*made, tmp_path / "kept.txt"}


def test_every_figure_speaks_to_a_screen_reader() -> None:
    for figure in figures():
        root = ET.fromstring(figure.standalone())
        space = "{http://www.w3.org/2000/svg}"
        assert root.get("role") == "img" and root.get("aria-label") == figure.title
        assert root.findtext(f"{space}title") == figure.title
        assert len(root.findtext(f"{space}desc") or "") > 60
        assert len(figure.table) and digest_of(figure.standalone()) == figure.digest


def test_hostile_names_stay_text() -> None:
    made = records(QUICK[:1], [0, 1]) + [
        record(Kind(f"{name}{index}", 2.1, control="dense_matched"), seed)
        for index, name in enumerate(NASTY[:12])
        for seed in (0, 1)
    ]
    for figure in board_figures(boards_of(made)[0]):
        root = ET.fromstring(figure.standalone())
        tags = {element.tag.rpartition("}")[2] for element in root.iter()}
        known = "svg title desc style g path use text defs clipPath rect tspan"
        assert tags <= set(known.split())
