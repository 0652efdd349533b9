"""The order and the cost of a grid, against simulations and sums written out."""

import itertools
import random
from dataclasses import replace
from pathlib import Path

import pytest

from bench.planning.prediction import Grid, longest_first, makespan, works_of
from bench.planning.rates import Rates
from bench.planning.work import Work
from bench.runner.cells import Cell
from tests import world

ROWS = ("short", "long", "middle")
SECONDS = {"short": 10.0, "middle": 20.0, "long": 40.0}


def cells(text: Path, seeds: int = 3, **changes: object) -> list[Cell]:
    suite = world.suite(text).model_copy(update=changes)
    rows = [suite.rows[0].model_copy(update={"name": name}) for name in ROWS]
    return [Cell(suite, row, seed) for seed in range(seeds) for row in rows]


def seconds(planned: list[Cell]) -> dict[str, float]:
    return {cell.digest: SECONDS[cell.row.name] for cell in planned}


def names(planned: list[Cell]) -> list[str]:
    return [f"{cell.row.name}{cell.seed}" for cell in planned]


def test_few_workers_end_whole_seeds_and_many_begin_with_the_longest(text: Path) -> None:
    planned = cells(text, seeds=2)
    few, many = (longest_first(planned, seconds(planned), workers) for workers in (2, 3))
    assert names(few) == ["long0", "middle0", "short0", "long1", "middle1", "short1"]
    assert names(many) == ["long0", "long1", "middle0", "middle1", "short0", "short1"]
    unknown = {d: s for d, s in seconds(planned).items() if d != planned[0].digest}
    assert names(longest_first(planned, unknown, 2))[0] == "short0", "it may be long"


def test_cells_that_train_a_backbone_come_first(text: Path) -> None:
    planned = cells(text, seeds=2, regime="controller")
    found = names(longest_first(planned, seconds(planned), 2))
    assert set(found[:2]) == {"short0", "short1"} and found[2] == "long0"


def test_equal_cells_keep_their_order(text: Path) -> None:
    planned = cells(text)
    assert longest_first(planned, dict.fromkeys(seconds(planned), 1.0), 2) == planned


def test_longest_first_is_at_most_a_third_longer_than_the_best_order() -> None:
    """Graham's bound for longest processing times first is 4/3 - 1/(3m)."""
    draw = random.Random(0)
    for _ in range(20):
        times = sorted((draw.uniform(1, 10) for _ in range(6)), reverse=True)
        best = min(makespan(order, 2) for order in itertools.permutations(times))
        assert best <= makespan(times, 2) <= (4 / 3 - 1 / 6) * best + 1e-9


def test_the_cost_of_a_grid_is_a_sum(text: Path) -> None:
    planned = cells(text, seeds=2)
    works = {
        cell.digest: Work("s", cell.row.name, SECONDS[cell.row.name] * 1e9, 10, 1e6, 0, 5e7)
        for cell in planned
    }
    rates = Rates([], flops_per_second=1e9)
    grid = Grid(longest_first(planned, seconds(planned), 3), works, rates, 3)
    assert grid.flops == 140e9 and grid.pretraining == 0
    # 40 | 40 | 20 20, then 10 and 10 where a worker is free first; an evaluation is a quarter, and
    # all else a quarter of both.
    assert grid.hours == pytest.approx(1.25**2 * 50 / 3600)
    assert grid.longest == pytest.approx(1.25**2 * 40 / 3600)
    assert grid.memory == 16e6 + 5e7 + 0.7e9
    assert grid.disk == 6 * 20_000 + 3 * 24e6
    # Four bytes for each of a million parameters, of six cells.
    assert replace(grid, keep_weights=True).disk == grid.disk + 6 * 4e6


def test_each_frozen_backbone_counts_once(text: Path) -> None:
    planned = cells(text, seeds=2, regime="controller")
    works = {
        cell.digest: Work("s", cell.row.name, 1e9, 10, 1e6, 0, 5e7, pretraining=7e9)
        for cell in planned
    }
    grid = Grid(planned, works, Rates([], flops_per_second=1e9), 1)
    assert grid.pretraining == 14e9
    assert grid.hours == pytest.approx((14 + 6 * 1.25**2) / 3600)
    assert grid.disk == 6 * 20_000 + 24e6 + 2 * 4e6


def test_rows_are_sized_once_and_impossible_ones_left_out(
    text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.planning import prediction

    sized: list[str] = []
    real = prediction.work_of
    monkeypatch.setattr(
        prediction, "work_of", lambda cell, text: sized.append(cell.row.name) or real(cell, text)
    )
    sound, broken = world.cell(text), world.cell(text, budget=0.01)
    again = replace(sound, seed=1)
    works = works_of([sound, broken, again])
    assert set(works) == {sound.digest, again.digest} and len(sized) == 2
    assert works[sound.digest] == works[again.digest]
    assert not works_of([replace(sound, outside=True)]), "a plugin is not looked up here"
