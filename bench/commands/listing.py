"""`bench list`: list the routers, suites and studies."""

import argparse
import hashlib
import json
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from tabulate import tabulate

from bench.commands.options import Subparsers
from bench.files import default_cache, write_atomically

Rows = list[list[Any]]
ROOT = Path(__file__).resolve().parents[2]
ENTRY_POINT_GROUP = "token_routing_bench.routers"
"""That of `bench.routing.load_routers`, whose import takes seconds."""


def add_parser(subparsers: Subparsers) -> None:
    """Declare the arguments."""
    parser = subparsers.add_parser("list", description=__doc__)
    parser.add_argument(
        "what",
        nargs="?",
        choices=("routers", "suites", "studies"),
        help="only these (default: all)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the tables."""
    tables: dict[str, tuple[Callable[[], Rows], tuple[str, ...], Any]] = {
        "routers": (_routers, ("router", "family", "paper", "description", "options"), _FOLDED),
        # The purpose is the longest column, so it is folded.
        "suites": (_suites, ("suite", "rows", "seeds", "purpose"), 100),
        "studies": (_studies, ("study", "size", "seeds", "cells", "core-minutes", "question"), 80),
    }
    chosen = [arguments.what] if arguments.what else list(tables)
    shown: list[str] = []
    for what in chosen:
        made, headers, widths = tables[what]
        rows = kept(what, made)
        shown.append(tabulate(rows, headers=headers, maxcolwidths=_folded(widths)))
    print("\n\n".join(shown))
    return 0


def kept(what: str, make: Callable[[], Rows]) -> Rows:
    """Return the rows of a table from the cache, or make and keep them.

    To make them means to import torch and all routers, which takes seconds.
    """
    state = state_of_sources()
    if state is None:
        return make()
    folder = default_cache() / "lists"
    file = folder / f"{what}-{state[:16]}.json"
    with suppress(OSError, ValueError):
        return json.loads(file.read_text(encoding="utf-8"))
    rows = make()
    # A cache that cannot be written costs time alone.
    with suppress(OSError):
        for old in folder.glob(f"{what}-*.json"):
            old.unlink()
        write_atomically(file, json.dumps(rows))
    return rows


def state_of_sources(root: Path = ROOT) -> str | None:
    """Return a hash of all that a list depends on; None with routers of other distributions."""
    # Their sources may change without a trace here.
    if entry_points(group=ENTRY_POINT_GROUP):
        return None
    files = [
        path
        for folder in ("bench", "routers")
        for path in sorted((root / folder).rglob("*"))
        if path.suffix in (".py", ".yaml")
    ]
    facts = [(path.as_posix(), path.stat().st_mtime_ns, path.stat().st_size) for path in files]
    # Without docstrings, under `python -OO`, the list is another.
    said = json.dumps([facts, sys.version, sys.flags.optimize])
    return hashlib.sha256(said.encode()).hexdigest()


def first_line(router: type) -> str:
    """Return the first line of a docstring. There is none under `python -OO`."""
    return next(iter((router.__doc__ or "").strip().splitlines()), "")


_FOLDED = (None, None, None, 60, 40)


def _folded(widths: Any) -> Any:
    """Return the widths for folding columns on a terminal, else None."""
    # Programs that read the list get one line per entry.
    return widths if sys.stdout is not None and sys.stdout.isatty() else None


def _routers() -> Rows:
    from bench.routing.load_routers import load_all
    from bench.routing.registry import options_of

    return [
        [
            entry.name,
            entry.family,
            entry.paper,
            first_line(entry.router),
            ", ".join(options_of(entry.router)),
        ]
        for entry in load_all().values()
    ]


def _suites() -> Rows:
    from bench.config.read_suite import load_suite, suite_names

    suites = [load_suite(name) for name in suite_names()]
    return [[suite.name, len(suite.rows), suite.seeds, suite.purpose] for suite in suites]


def _studies() -> Rows:
    from bench.study.read_study import load_study, study_names

    studies = [load_study(name) for name in study_names()]
    return [
        [study.name, size, definition.seeds, study.num_cells(definition), definition.core_minutes,
         study.title]
        for study in studies
        for size, definition in study.sizes.items()
    ]  # fmt: skip
