"""`bench list`: list the routers, suites and studies."""

import argparse
import sys
from typing import Any

from tabulate import tabulate

from bench.commands.options import Subparsers
from bench.config.read_suite import load_suite, suite_names


def add_parser(subparsers: Subparsers) -> None:
    """Declare the arguments."""
    parser = subparsers.add_parser(
        "list", help="list routers, suites and studies", description=__doc__
    )
    parser.add_argument(
        "what",
        nargs="?",
        choices=("routers", "suites", "studies"),
        help="only these (default: all)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the tables."""
    tables = {"routers": _routers, "suites": _suites, "studies": _studies}
    print("\n\n".join(table() for what, table in tables.items() if arguments.what in (None, what)))
    return 0


def first_line(router: type) -> str:
    """Return the first line of a docstring. There is none under `python -OO`."""
    return next(iter((router.__doc__ or "").strip().splitlines()), "")


def _folded(widths: Any) -> Any:
    """Return the widths for folding columns on a terminal, else None."""
    # Programs that read the list get one line per entry.
    return widths if sys.stdout is not None and sys.stdout.isatty() else None


def _routers() -> str:
    from bench.routing.registry import load_all, options_of

    rows = [
        (
            entry.name,
            entry.family,
            entry.paper,
            first_line(entry.router),
            ", ".join(options_of(entry.router)),
        )
        for entry in load_all().values()
    ]
    return tabulate(
        rows,
        headers=("router", "family", "paper", "what it does", "options"),
        maxcolwidths=_folded((None, None, None, 60, 40)),
    )


def _suites() -> str:
    suites = [load_suite(name) for name in suite_names()]
    # The purpose is the longest column, so it is folded.
    rows = [(suite.name, len(suite.rows), suite.seeds, suite.purpose) for suite in suites]
    return tabulate(rows, headers=("suite", "rows", "seeds", "purpose"), maxcolwidths=_folded(100))


def _studies() -> str:
    from bench.study.read_study import load_study, study_names

    studies = [load_study(name) for name in study_names()]
    rows = [
        (study.name, size, definition.seeds, study.num_cells(definition), definition.core_minutes,
         study.title)
        for study in studies
        for size, definition in study.sizes.items()
    ]  # fmt: skip
    return tabulate(
        rows,
        headers=("study", "size", "seeds", "cells", "core-minutes", "question"),
        maxcolwidths=_folded(80),
    )
