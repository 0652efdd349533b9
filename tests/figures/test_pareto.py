"""Losses against costs: the front, and names that match the marks."""

import math

import numpy as np
import pytest

from bench.board.build import boards_of
from bench.figures.pareto import pareto
from tests.board.drawn import titled
from tests.board.synthetic import records

BOARD = boards_of(records())[0]


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


def test_every_row_has_a_mark_with_its_numbers() -> None:
    for figure in pareto(BOARD):
        names = {title.split(": ")[0] for title in titled(figure)}
        assert names == set(figure.data["row"])


def test_costs_are_placed_by_their_logarithm() -> None:
    figure = pareto(BOARD)[0]
    marks = {title.split(": ")[0]: group for title, group in titled(figure).items()}
    places = [float(next(marks[row].iter("use")).attrib["x"]) for row in figure.data["row"]]
    fit = np.polynomial.Polynomial.fit(np.log(figure.data["cost"]), places, 1)
    assert fit(np.log(figure.data["cost"])) == pytest.approx(places, abs=0.2)
    assert figure.data["cost"].max() > math.e * figure.data["cost"].min() / 2
