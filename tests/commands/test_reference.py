"""Generated pages of docs/: they are current, and agree with the code."""

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.commands.reference import PAGES, options_help, places
from bench.config.base import Part
from bench.routing import Router, RoutingPlan
from bench.routing.load_routers import load_shipped
from bench.routing.registry import options_of

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_current(name: str) -> None:
    command = [sys.executable, "-m", "bench.commands.reference", name]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    page = (ROOT / "docs" / f"{name}.md").read_text("utf-8")
    assert made.stdout == page, f"docs/{name}.md is stale. Run `make docs`."


def tables(page: str, level: str) -> dict[str, dict[str, list[str]]]:
    """Heading -> first cell -> the other cells, of the tables on a page."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    found: dict[str, dict[str, list[str]]] = {}
    for section in re.split(rf"^{level} ", text, flags=re.MULTILINE)[1:]:
        rows = [line[2:-2].split(" | ") for line in section.splitlines() if line.startswith("| `")]
        found[section.splitlines()[0].strip("`")] = {row[0].strip("`"): row[1:] for row in rows}
    return found


@pytest.mark.parametrize("part", places(), ids=lambda part: part.__name__)
def test_every_field_of_a_suite_is_explained(part: type[Part]) -> None:
    """Against the JSON schema that pydantic itself makes."""
    schema = part.model_json_schema()
    shown = tables("suites.md", "###")[places()[part] or "Top level"]
    assert shown.keys() == schema["properties"].keys()
    for name, field in schema["properties"].items():
        kind, default, allowed, meaning = shown[name]
        assert meaning and meaning == field["description"].replace("|", "\\|")
        assert (default == "required") == (name in schema.get("required", []))
        # An optional field, a list or a choice has its limits one level deeper.
        parts = [field, field.get("items", {}), *field.get("anyOf", [])]
        assert all(f"`{value}`" in allowed for each in parts for value in each.get("enum", []))
        for sign, limit in (("> ", "exclusiveMinimum"), ("≤ ", "maximum")):
            values = [f"{sign}{each[limit]:g}" for each in parts if limit in each]
            assert all(value in allowed.split(", ") for value in values)
        if isinstance(field.get("default"), str | float) and field["default"] not in (True, False):
            assert default == (f"`{field['default']}`" if field["default"] else "none")
        if {"type": "array"}.items() <= field.items():
            assert kind.startswith("list of ")


def test_every_router_is_on_the_page_with_its_options() -> None:
    shown = tables("routers.md", "##")
    entries = {
        name: e for name, e in load_shipped().items() if e.router.__module__[:8] == "routers."
    }
    assert shown.keys() == entries.keys()
    text = (ROOT / "docs/routers.md").read_text("utf-8")
    for name, entry in entries.items():
        section = text.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert f"Family: {entry.family}." in section and entry.paper in section
        options: dict[str, Any] = options_of(entry.router)
        assert shown[name].keys() == options.keys()
        for option, default in options.items():
            _, said, allowed, meaning = shown[name][option]
            assert meaning, f"option {option} of {name} is not explained"
            assert str(default).lower() in said.lower()
            assert not allowed or said == "none" or said in allowed


class Base(Router):
    """A base.

    Args:
        one: the first
            option: with a colon.
        two: the second.

    Raises:
        ValueError: never.
    """


class Derived(Base):
    """A router.

    Args:
        two: its own.
    """

    def forward(self, inputs: Any) -> RoutingPlan:
        raise NotImplementedError


def test_the_help_of_options_comes_from_the_nearest_docstring() -> None:
    assert options_help(Derived) == {"two": "its own.", "one": "the first option: with a colon."}
    assert "ValueError" not in options_help(Base) and inspect.getdoc(Base) is not None
