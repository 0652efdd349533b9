"""The record of a cell: fixed, closed, and lossless in JSON."""

import json
import math

import pytest
from pydantic import ValidationError

from bench.record import Record
from tests.board.synthetic import QUICK, record

MADE = record(QUICK[1], 0)


def test_a_record_and_its_parts_cannot_be_changed() -> None:
    for part in (MADE, MADE.cell, MADE.provenance, MADE.curve[0], MADE.monitors[0]):
        name = next(iter(type(part).model_fields))
        with pytest.raises(ValidationError, match="frozen"):
            setattr(part, name, getattr(part, name))


@pytest.mark.parametrize("where", ["", "cell", "provenance", "flops", "training", "speed"])
def test_a_field_that_is_not_declared_is_refused_by_name(where: str) -> None:
    data = json.loads(MADE.model_dump_json())
    (data[where] if where else data)["lss"] = 1
    with pytest.raises(ValidationError, match=r"lss\n  Extra inputs are not permitted"):
        Record.model_validate(data)


@pytest.mark.parametrize("loss", [math.inf, -math.inf, math.nan])
def test_losses_that_are_no_numbers_survive_json(loss: float) -> None:
    text = MADE.model_copy(update={"loss": loss}).model_dump_json()
    back = Record.model_validate_json(text).loss
    assert back is not None and (back == loss or (math.isnan(back) and math.isnan(loss)))


@pytest.mark.parametrize(
    ("field", "value"), [("status", "fine"), ("status", None), ("loss", "low"), ("cell", {})]
)
def test_a_value_of_another_kind_is_refused(field: str, value: object) -> None:
    data = json.loads(MADE.model_dump_json()) | {field: value}
    with pytest.raises(ValidationError, match=field):
        Record.model_validate(data)
