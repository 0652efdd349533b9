"""Say in one line what is wrong with the fields of a suite or a study."""

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import ValidationError

from bench.config.base import Part
from bench.errors import unknown

_WANTED = {
    "dict_type": "give a mapping, such as {name: value}",
    "tuple_type": "give a list, such as [1, 2]",
    "int_parsing": "give a whole number in digits, such as 1000000",
}
"""Kind of a problem -> the allowed values, where pydantic's own text needs Python to be read."""


def first_problem(error: ValidationError, model: type[Part]) -> str:
    """Return the first problem, which is usually the cause of the others.

    Args:
        error: the error of the whole declaration.
        model: the class of the declaration.
    """
    problems = error.errors()
    # A field that lacks may be one that is misspelt, and then the misspelling is the cause.
    misspelt = next((one for one in problems if one["type"] == "extra_forbidden"), problems[0])
    problem = misspelt if problems[0]["type"] == "missing" else problems[0]
    kind, place = problem["type"], problem["loc"]
    where = ".".join(str(part) for part in place)
    if kind == "value_error":
        # One of our own checks, perhaps of several fields: its message has the values.
        said = problem["msg"].removeprefix("Value error, ").rstrip(".")
        return f"field {where!r}: {said}." if where else f"{said}."
    if kind == "extra_forbidden":
        return str(unknown("field", where, _fields_at(model, place[:-1])))
    # Of a missing field, pydantic gives the whole group as its input.
    value = "" if kind == "missing" else f" (got {str(problem['input'])[:80]!r})"
    if kind == "string_type" and not isinstance(problem["input"], list | dict):
        value += f", which YAML reads as no text: put it in quotes, '\"{problem['input']}\"'"
    said = _WANTED.get(kind, problem["msg"])
    if kind == "model_type":
        said = f"it is a group of fields; give some of {', '.join(_fields_at(model, place))}"
    return f"field {where!r}: {said}{value}."


def _fields_at(model: type[Part], place: tuple[int | str, ...]) -> list[str]:
    """Return the dotted names of the fields that exist at a place of a declaration."""
    for part in place:
        # The index of a list and the key of a mapping are no fields: the part is the same.
        if isinstance(part, str) and part in model.model_fields:
            inside = _parts_in(model.model_fields[part].annotation)
            model = next(inside, model)
    return [".".join(str(part) for part in (*place, name)) for name in model.model_fields]


def _parts_in(annotation: Any) -> Iterator[type[Part]]:
    """Yield the parts of an annotation: of an optional group, a list or a mapping."""
    if isinstance(annotation, type) and issubclass(annotation, Part):
        yield annotation
    for inner in get_args(annotation):
        yield from _parts_in(inner)
