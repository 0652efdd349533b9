"""Records of several processors share a board; their times do not."""

import math

import pytest

from bench.board.conditions import processors, separate, with_one_clock
from bench.board.measures import latency, training_latency
from tests.board.synthetic import QUICK, record


def mixed() -> list:
    """Make five records, two of them on another processor."""
    where = ["a", "b", "a", "b", "a"]
    return [
        record(QUICK[0], seed, provenance={"processor": name}) for seed, name in enumerate(where)
    ]


def test_processors_stay_together_and_times_are_those_of_most_records() -> None:
    given = mixed()
    together, apart = separate(given)
    assert not apart
    assert [one.loss for one in together] == [one.loss for one in given]
    for one, before in zip(together, given, strict=True):
        timed = one.provenance.processor == "a"
        for read in (latency, training_latency):
            now = read(one)
            assert now == read(before) if timed else now is None or math.isnan(now)
        assert all(math.isfinite(point.seconds) is timed for point in one.curve)
        assert one.training is not None and before.training is not None
        assert math.isfinite(one.training.seconds) is timed
        assert one.training.tokens == before.training.tokens


def test_a_board_names_its_processors() -> None:
    assert processors(mixed()) == "a and b (times: a alone)"
    assert processors(mixed()[::2]) == "a"


@pytest.mark.parametrize("count", [1, 3])
def test_records_of_one_processor_are_left_as_they_are(count: int) -> None:
    given = mixed()[::2][:count]
    assert with_one_clock(given) == given


def test_in_bfloat16_the_processors_of_a_board_are_one() -> None:
    given = [
        one.model_copy(
            update={"provenance": one.provenance.model_copy(update={"dtype": "bfloat16"})}
        )
        for one in mixed()
    ]
    together, apart = separate(given)
    assert {one.provenance.processor for one in together} == {"a"} and len(together) == 3
    assert {why for _, why in apart} == {"processor b, the board has a"}
