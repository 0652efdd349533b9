"""Rows are ranked on the seeds that they have in common."""

from collections.abc import Iterable

import pytest

from bench.board.build import boards_of
from bench.board.model import Row
from bench.board.rows import common_seeds
from tests.board.synthetic import Kind, record

GATE, CHANCE = Kind("mlp_gate", 2.0), Kind("random@ffn", 2.2, "control", control=None)


def row(name: str, seeds: Iterable[int]) -> Row:
    return Row(name, tuple(record(Kind(name, 2.0), seed) for seed in seeds))


def test_further_seeds_of_one_of_two_rows_take_no_verdict_away() -> None:
    few = [record(kind, seed) for kind in (GATE, CHANCE) for seed in range(3)]
    more = [record(GATE, seed) for seed in range(3, 9)]
    before, after = boards_of(few)[0], boards_of([*few, *more])[0]
    assert before.judgement.outcomes["mlp_gate", "random@ffn"].verdict == "better"
    assert after.judgement.outcomes == before.judgement.outcomes
    assert not after.unranked
    (extended,) = [row for row in after.ranked if row.name == "mlp_gate"]
    assert extended.reason == "seeds 3-8 left out: they are not common to the rows"


@pytest.mark.parametrize(
    ("held", "chosen"),
    [
        ([range(3), range(3)], (0, 1, 2)),
        ([range(3), range(9)], (0, 1, 2)),
        ([range(1, 4), range(3)], (1, 2)),
        ([range(6)] * 5 + [range(2)], tuple(range(6))),
        ([range(3)] * 5 + [range(9)], (0, 1, 2)),
        ([range(2), range(2, 4)], (0, 1)),
        ([range(1)], (0,)),
        ([], ()),
    ],
)
def test_the_largest_set_that_most_rows_hold(held: list[range], chosen: tuple[int, ...]) -> None:
    assert common_seeds([row(f"r{n}", seeds) for n, seeds in enumerate(held)]) == chosen
