"""Figures with one line a row: marks against their numbers."""

import math
import re

import numpy as np
import pytest

from bench.board.build import boards_of
from bench.board.charts import domains, forest, rank_chart
from tests.board.drawn import centre, titled
from tests.board.synthetic import records

BOARD = boards_of(records())[0]


def test_forest_places_means_by_one_linear_scale_and_shows_the_declared_numbers() -> None:
    (figure,) = forest(BOARD)
    control = BOARD.matched_control
    marks = {
        title.split(" to ")[0]: group
        for title, group in titled(figure).items()
        if f" to {control}: " in title
    }
    rows = [row for row in BOARD.ranked if row.role == "ranked"]
    assert set(marks) == {row.name for row in rows}
    outcomes = [BOARD.outcome(row, control) for row in rows]
    means = np.array([one.difference for one in outcomes if one]) / math.log(2)
    pixels = np.array([centre(marks[row.name]) for row in rows])
    fit = np.polynomial.Polynomial.fit(means, pixels, 1)
    assert fit(means) == pytest.approx(pixels, abs=0.2)
    shown = figure.data[figure.data["control"] == control].set_index("row")
    for row, outcome in zip(rows, outcomes, strict=True):
        assert outcome is not None
        assert shown.loc[row.name, ["difference", "low", "high"]].tolist() == pytest.approx(
            [outcome.difference / math.log(2), *(end / math.log(2) for end in outcome.interval)]
        )


def test_an_interval_is_wider_than_its_dot() -> None:
    (figure,) = forest(BOARD)
    bars = [
        path.attrib["d"]
        for group in figure.element.iter("g")
        if group.find("title") is not None
        for path in group.findall("path")
    ]
    ends = [[float(x) for x in re.findall(r"[ML](-?[\d.]+)", bar)] for bar in bars]
    assert len(ends) == len(figure.data)
    assert all(right - left > 8 for left, right in ends)


def test_ranks_and_tiers_are_those_of_the_judgement() -> None:
    (figure,) = rank_chart(BOARD)
    ranks = BOARD.judgement.ranks
    for one in figure.data.to_dict("records"):
        rank = ranks[one["row"]]
        assert (one["low"], one["high"], one["tier"]) == (rank.low, rank.high, rank.tier)
    assert list(figure.data["order"]) == list(range(1, len(BOARD.ranked) + 1))


def test_heat_is_strongest_for_the_best_row_of_each_domain() -> None:
    (figure,) = domains(BOARD)
    wide = figure.table.set_index("row")
    cells: dict[tuple[float, float], float] = {}
    for path in figure.element.iter("path"):
        if "var(--heat)" in path.get("style", ""):
            x, y = re.findall(r"-?[\d.]+", path.attrib["d"])[:2]
            opacity = re.findall(r"fill-opacity:([\d.]+)", path.attrib["style"])
            cells[float(x), float(y)] = float(opacity[0])
    columns = sorted({x for x, _ in cells})
    assert len(columns) == len(wide.columns)
    top = min(y for _, y in cells)
    height = min(y for _, y in cells if y > top) - top
    for column, name in zip(columns, wide.columns, strict=True):
        shades = {y: shade for (x, y), shade in cells.items() if x == column}
        best = next(y for y in shades if round((y - top) / height) == wide[name].argmin())
        assert shades[best] == max(shades.values()) > min(shades.values())
    loss = np.mean([one.domain_loss["code"] for one in records() if one.cell.row == "hash"])
    assert wide.loc["hash", "code"] == pytest.approx(loss / math.log(2))
