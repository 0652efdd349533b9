"""Records of several processors share a board; their times do not."""

import math

import pytest

from bench.board.conditions import processors, separate, with_one_clock
from bench.board.measures import latency, training_latency
from bench.record import Record
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


def made_with(one: Record, **changes: str) -> Record:
    """Return the record with other fields of its provenance."""
    made = one.provenance.model_copy(update={"dtype": "bfloat16"} | changes)
    return one.model_copy(update={"provenance": made})


def test_in_bfloat16_the_instructions_of_a_board_are_one() -> None:
    """Two processors of one name may multiply in other units; in float32 these do not matter."""
    units, same = ["amx_bf16", "avx512_bf16", "amx_bf16"], mixed()[::2]
    given = [made_with(one, instructions=unit) for one, unit in zip(same, units, strict=True)]
    together, apart = separate(given)
    assert [one.provenance.instructions for one in together] == ["amx_bf16"] * 2
    assert [why for _, why in apart] == ["processor a avx512_bf16, the board has a amx_bf16"]
    assert not separate([made_with(one, dtype="float32") for one in given])[1]


def test_in_bfloat16_the_processors_of_a_board_are_one() -> None:
    together, apart = separate([made_with(one) for one in mixed()])
    assert {one.provenance.processor for one in together} == {"a"} and len(together) == 3
    assert {why for _, why in apart} == {"processor b, the board has a"}
