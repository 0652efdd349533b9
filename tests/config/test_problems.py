"""The first problem of a declaration, in words that need no Python."""

from typing import Any

import pytest
from pydantic import Field, ValidationError

from bench.config.base import Part
from bench.config.problems import first_problem


class Inner(Part):
    size: int = 1
    names: tuple[str, ...] = ()


class Outer(Part):
    must: int
    count: int = 1
    inner: Inner | None = None
    several: tuple[Inner, ...] = ()
    by_name: dict[str, Inner] = Field(default_factory=dict)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"count": "1e6"}, "field 'count': give a whole number in digits"),
        ({"count": 1.5}, "field 'count': Input should be a valid integer"),
        ({"inner": 3}, "it is a group of fields; give some of inner.size, inner.names (got '3')"),
        ({"inner": {"names": 3}}, "field 'inner.names': give a list, such as [1, 2] (got '3')"),
        ({"inner": {"names": [3]}}, "put it in quotes, '\"3\"'"),
        ({"by_name": 3}, "field 'by_name': give a mapping, such as {name: value}"),
        ({"counts": 1}, "Unknown field 'counts'. Did you mean 'count'?"),
        ({"inner": {"sise": 1}}, "Did you mean 'inner.size'?"),
        ({"several": [{}, {"sise": 1}]}, "Did you mean 'several.1.size'?"),
        ({"by_name": {"count": {"sise": 1}}}, "Did you mean 'by_name.count.size'?"),
    ],
)
def test_a_problem_names_its_field_and_the_allowed_values(data: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Outer.model_validate({"must": 1} | data)
    assert said in first_problem(raised.value, Outer)


def test_a_misspelling_is_named_before_the_field_that_lacks_because_of_it() -> None:
    for data, said in (({}, "field 'must': Field required."), ({"mutst": 1}, "mean 'must'?")):
        with pytest.raises(ValidationError) as raised:
            Outer.model_validate(data)
        assert said in first_problem(raised.value, Outer)
