"""Write the pages of docs/ that are generated from the code.

    python -m bench.commands.reference suites > docs/suites.md
    python -m bench.commands.reference routers > docs/routers.md

`make docs` writes them all.
"""

import inspect
import re
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from textwrap import fill
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic.fields import FieldInfo

from bench.config.base import Part
from bench.config.read_suite import load_suite, suite_names
from bench.config.suite import SuiteConfig
from bench.routing.contract import Router
from bench.routing.load_routers import load_shipped
from bench.routing.paths import Paths
from bench.routing.registry import Entry, options_of

NAMES = {int: "integer", float: "number", str: "text", bool: "true or false", dict: "mapping"}
SIGNS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
WIDTH = 100


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Render a Markdown table."""
    lines = [headers, ["---"] * len(headers), *rows]
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def type_name(annotation: Any) -> str:
    """Name the type of a field or an option in plain words; a part links to its own table."""
    # The table shows None as a default, so the type leaves it out.
    inner = [part for part in get_args(annotation) if part not in (NoneType, ...)]
    origin = get_origin(annotation) or annotation
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(type_name(part) for part in inner))
    if origin is Literal:
        return NAMES[type(inner[0])]
    if origin in (tuple, Sequence):
        return f"list of {type_name(inner[0])}"
    if isinstance(origin, type) and issubclass(origin, Part):
        place = places()[origin]
        return f"[{place}](#{place.replace('.', '')})"
    if isinstance(origin, type) and issubclass(origin, Router):
        return "router"
    if origin in NAMES:
        return NAMES[origin]
    # `Annotated[float, ...]` has its type first, and abstract mappings are mappings.
    return type_name(inner[0]) if hasattr(annotation, "__metadata__") else "mapping"


def choices(annotation: Any) -> list[str]:
    """Return the allowed values of a literal type, also inside a union."""
    if get_origin(annotation) is Literal:
        return [f"`{value}`" for value in get_args(annotation)]
    if get_origin(annotation) in (Union, UnionType):
        return [value for part in get_args(annotation) for value in choices(part)]
    return []


def allowed(field: FieldInfo) -> str:
    """Return the range or the choices of a field."""
    found = [", ".join(choices(field.annotation))] if choices(field.annotation) else []
    # Limits of a list's items are inside its type.
    items = [part for part in get_args(field.annotation) if hasattr(part, "__metadata__")]
    limits = [*field.metadata, *(limit for part in items for limit in _limits_of(part))]
    for limit in limits:
        found += [
            f"{sign} {getattr(limit, name):g}"
            for name, sign in SIGNS.items()
            if hasattr(limit, name)
        ]
        if hasattr(limit, "min_length"):
            found.append(f"at least {limit.min_length}")
        if getattr(limit, "pattern", None):
            found.append(f"`{limit.pattern}`")
    return ", ".join(found)


def _limits_of(annotated: Any) -> Iterable[Any]:
    return (limit for info in annotated.__metadata__ for limit in getattr(info, "metadata", [info]))


def shown(value: Any) -> str:
    """Show a default value."""
    if isinstance(value, Part):
        return "its defaults"
    if value is None or value in ("", (), {}):
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"`{list(value) if isinstance(value, tuple) else value}`"


@cache
def places() -> dict[type[Part], str]:
    """Return the parts of a suite -> their place in its file, in the order of the fields.

    A part that occurs in two places has the first.
    """
    found: dict[type[Part], str] = {SuiteConfig: ""}
    pending: list[type[Part]] = [SuiteConfig]
    for model in pending:
        for name, field in model.model_fields.items():
            for kind in (field.annotation, *get_args(field.annotation)):
                if isinstance(kind, type) and issubclass(kind, Part) and kind not in found:
                    found[kind] = f"{found[model]}.{name}".strip(".")
                    pending.append(kind)
    return found


def fields_of(model: type[Part]) -> list[tuple[str, str, str, str, str]]:
    """Return field, type, default, allowed values and meaning of every field of a part."""
    return [
        (
            f"`{name}`",
            type_name(field.annotation),
            "required"
            if field.is_required()
            else shown(field.get_default(call_default_factory=True)),
            allowed(field),
            field.description or "",
        )
        for name, field in model.model_fields.items()
    ]


def suites_page() -> str:
    """Render docs/suites.md from the schema and the suites of the bench."""
    names = suite_names()
    parts = [
        "# Suites",
        "A suite is a YAML file. It fixes everything but the router: data, decoder, budget, "
        "training recipe, rows and the planned comparisons. `--suite NAME` runs a suite of the "
        "bench, `--suite my.yaml` your own file, and `--set train.batch_size=8` changes one field "
        "of either. Copy [quick.yaml](../bench/suites/quick.yaml) to begin. Unknown fields and "
        "values out of range are refused before anything runs.",
        "`make docs` writes this page from the schema in `bench/config/`.",
        "## Suites of the bench",
        table(("suite", "regime", "backbone", "rows", "seeds", "purpose"), map(_suite_row, names)),
        "## Fields",
    ]
    for model, place in places().items():
        parts += [
            f"### `{place}`" if place else "### Top level",
            " ".join((inspect.getdoc(model) or "").split()),
            table(("field", "type", "default", "allowed", "meaning"), fields_of(model)),
        ]
    return page(parts)


def _suite_row(name: str) -> list[str]:
    suite = load_suite(name)
    link = f"[{name}](../bench/suites/{name}.yaml)"
    sizes = [str(len(suite.rows)), str(suite.seeds)]
    return [link, suite.regime, suite.backbone, *sizes, suite.purpose]


def options_help(router: type[Router]) -> dict[str, str]:
    """Return option -> help from the `Args` of a router's docstring, or of its bases'."""
    found: dict[str, str] = {}
    for base in router.__mro__:
        _, _, text = inspect.cleandoc(base.__doc__ or "").partition("\nArgs:\n")
        section = re.split(r"\n(?=\S)", text)[0]
        # An option begins a line at four spaces; its text goes on at eight.
        for name, said in re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE):
            found.setdefault(name, " ".join(said.split()))
    return found


def paths_of(paths: Paths) -> str:
    """Describe the paths that a router chooses among."""
    if paths.base is not None:
        return f"{' or '.join(paths.names)} {'FFN' if paths.site == 'ffn' else ''}".strip()
    merged = f", merged for every {paths.segment} tokens" if paths.segment else ""
    shared = f", and {len(paths.always)} shared" if paths.always else ""
    count = len(paths.chosen)
    return f"{count} expert{'s'[: count - 1]}{shared}{merged}"


def describe_router(entry: Entry) -> list[str]:
    """Return the parts of the page about one router."""
    doc = inspect.getdoc(entry.router) or ""
    # The sections after the text (Args, Raises, Attributes) are shown as a table, or not at all.
    prose = re.split(r"\n\n(?=[A-Z]\w+:\n)", doc)[0]
    facts = [f"Family: {entry.family}.", f"Paths: {paths_of(entry.make({}).paths)}."]
    if entry.paper:
        place = entry.paper.replace("arXiv:", "arxiv.org/abs/")
        facts.append(f"Paper: [{entry.paper}](https://{place}).")
    parts = [f"## {entry.name}", " ".join(facts), *prose.split("\n\n")]
    hints, told = get_type_hints(entry.router.__init__), options_help(entry.router)
    rows = [
        [
            f"`{name}`",
            type_name(hints[name]),
            shown(default),
            ", ".join(choices(hints[name])),
            told.get(name, ""),
        ]
        for name, default in options_of(entry.router).items()
    ]
    if rows:
        parts.append(table(("option", "type", "default", "allowed", "meaning"), rows))
    return parts


def routers_page() -> str:
    """Render docs/routers.md from the registry of shipped routers."""
    parts = [
        "# Routers",
        "Routers of the package `routers/`, with their options. An option follows the name on the "
        "command line, `--routers 'mlp_gate:width_ratio=0.5'`, or is in a row of a suite, "
        "`{name: mlp_gate@wide, options: {width_ratio: 0.5}}`. The paths are those of the default "
        "options. [Add a router](../routers/README.md) says how to write one.",
        "`make docs` writes this page from the docstrings in `routers/`.",
    ]
    # Plugins and entry points of the machine stay out: the page is the same everywhere.
    entries = load_shipped().values()
    overview = [
        (f"[{entry.name}](#{entry.name})", entry.family, paths_of(entry.make({}).paths))
        for entry in entries
    ]
    parts.append(table(("router", "family", "paths"), overview))
    for entry in entries:
        parts += describe_router(entry)
    return page(parts)


def page(parts: Iterable[str]) -> str:
    """Join the parts of a page and fold its paragraphs."""
    folded = (
        part if part.startswith(("#", "|")) else fill(part, WIDTH, break_on_hyphens=False)
        for part in parts
    )
    return "\n\n".join(folded) + "\n"


PAGES = {"suites": suites_page, "routers": routers_page}


if __name__ == "__main__":
    print(PAGES[sys.argv[1]](), end="")
