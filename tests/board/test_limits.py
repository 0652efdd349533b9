"""How far the verdicts of a board reach: each figure against the records or a closed form."""

import re
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

import pytest

from bench.board.build import boards_of
from bench.board.limits import left_out, limits
from bench.board.model import Board
from bench.board.text import BITS, number
from bench.board.verdicts import word
from bench.record import Record
from tests.board.synthetic import CONFIG, QUICK, Kind, record, records

BOARD = boards_of(records())[0]
RANKED = [kind for kind in QUICK if kind.role in ("ranked", "control", "twin")]


def line(board: Board, subject: str) -> str:
    (said,) = [one for one in limits(board) if one.startswith(f"{subject}: ")]
    return said


def with_looks(looks: Sequence[int], seeds: int, kinds: Sequence[Kind] = QUICK[:2]) -> list[Record]:
    config = {**CONFIG, "comparison": {"margin": 0.01, "alpha": 0.05, "looks": list(looks)}}
    return [record(k, seed, provenance={"config": config}) for k in kinds for seed in range(seeds)]


def test_the_detectable_difference_stands_against_the_margin() -> None:
    smallest = median(one.detectable for one in BOARD.judgement.outcomes.values())
    said = line(BOARD, "Resolution")
    assert f" {number(BITS * smallest)} bits per byte is detected in 80 % of cases" in said
    assert f"The margin is {number(BITS * 0.01, 4)}: " in said
    assert smallest > 0.01 and said.endswith("can hardly be shown here.")
    wide = {**CONFIG, "comparison": {**CONFIG["comparison"], "margin": 0.1}}
    assert line(replace(BOARD, config=wide), "Resolution").endswith("can be shown here.")


def test_sizes_and_shares_are_ranges_over_the_ranked_rows() -> None:
    made = [
        one.model_copy(
            update={
                "training": one.training.model_copy(
                    update={"parameters_active": 100_000 if one.cell.row == "mod" else 200_000}
                )
            }
        )
        for one in records()
        if one.training
    ]
    (board,) = boards_of(made)
    assert "Size: 100k to 200k active parameters per model, " in line(board, "Size")
    assert "may spend 50 % of the cost of their full paths" in line(board, "Cost")
    assert "costs 62.0 % of the dense model's FLOPs per token" in line(board, "Cost")


def test_looks_are_said_and_an_interim_one_by_its_name() -> None:
    (single,), (early,), (last,) = (
        boards_of(with_looks(looks, 3)) for looks in ((), (3, 6), (2, 3))
    )
    level = "Level: the chance of one or more false differences on this board is at most 5 %."
    assert line(single, "Level") == line(early, "Level") == level
    assert "Interim look: 3 of 6 seeds have been run." in line(early, "Interim look")
    assert line(last, "Level").startswith(level)
    assert "judged at 2 and at 3 seeds, and the 5 % covers all looks" in line(last, "Level")
    for board in (single, last):
        assert not any(one.startswith("Interim look") for one in limits(board))


def test_looks_that_were_added_raise_the_chance_and_it_is_said() -> None:
    old, new = with_looks((3, 10), 4), with_looks((3, 10, 30), 10)
    kept = {(one.cell.row, one.cell.seed) for one in old}
    (board,) = boards_of(old + [r for r in new if (r.cell.row, r.cell.seed) not in kept])
    found = re.search(r"up to ([\d.]+) %", line(board, "Changed looks"))
    # One comparison errs with 8.8 %, by 4 million draws; two independent looks with 9.75 %.
    assert found and 8.8 <= float(found[1]) <= 9.8
    (same,) = boards_of(new)
    assert not any(one.startswith("Changed looks") for one in limits(same))


def test_rows_of_another_commit_are_named_with_whether_they_came_later() -> None:
    made = records(RANKED)
    for day, said in (("2026-11-21", "mod at ffff0000"), ("2026-11-23", "mod later, at ffff0000")):
        changed = {"commit": "ffff0000ffff", "started": f"{day}T10:00:00Z"}
        mod = next(kind for kind in RANKED if kind.row == "mod")
        again = [record(mod, seed, provenance=changed) for seed in range(3)]
        (board,) = boards_of([*(one for one in made if one.cell.row != "mod"), *again])
        assert f"most records were run at 01234567; {said}." in line(board, "Commits")
    assert not any(one.startswith("Commits") for one in limits(boards_of(made)[0]))


def test_the_training_time_of_winners_is_relative_to_the_matched_dense_model() -> None:
    routers = [row for row in BOARD.ranked if row.role == "ranked"]
    found = {row.name: BOARD.outcome(row, "dense_matched") for row in routers}
    best = {name for name, one in found.items() if one and word(one) == "better"}
    speeds = {"dense_matched": 1000.0, **dict.fromkeys(best, 500.0)}
    speeds[min(best)] = 800.0
    made = [
        one.model_copy(
            update={
                "training": one.training.model_copy(
                    update={"tokens_per_second": speeds.get(one.cell.row, 100.0)}
                )
            }
        )
        for one in records()
        if one.training
    ]
    said = line(boards_of(made)[0], "Time")
    assert len(best) > 1 and "the rows that beat dense_matched train 1.25 to 2.00 times" in said


@pytest.mark.parametrize(
    ("status", "said"),
    [("off_budget", "missed the budget"), ("failed", "failed"), ("diverged", "diverged")],
)
def test_a_row_without_a_comparison_says_what_happened_to_it(status: str, said: str) -> None:
    bad = record(Kind("lost", 2.1), 1, status=status, reason="x")
    good = [record(Kind("lost", 2.1), seed) for seed in (0, 2)]
    (board,) = boards_of([*records(), *good, bad])
    first, last = left_out(board, str)
    assert first == f"lost {said} in seed 1, so the whole row is left out."
    assert "still count" in last
    assert left_out(BOARD, str) == []
