"""`bench list`: the routers and suites that there are."""

import argparse

from tabulate import tabulate

from bench.commands.options import Subparsers
from bench.config import load_suite, suite_names


def add_parser(subparsers: Subparsers) -> None:
    """Declare the arguments."""
    parser = subparsers.add_parser("list", help="list routers and suites", description=__doc__)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print both tables."""
    from bench.contract import options_of
    from bench.registry import load_all

    del arguments
    rows = [
        (entry.name, entry.family, entry.paper, (entry.router.__doc__ or "").splitlines()[0], ", ".join(options_of(entry.router)))
        for entry in load_all().values()
    ]
    print(tabulate(rows, headers=("router", "family", "paper", "what it does", "options"), tablefmt="simple"))
    suites = [load_suite(name) for name in suite_names()]
    print()
    print(
        tabulate(
            [(s.name, len(s.rows), s.seeds, s.purpose) for s in suites], headers=("suite", "rows", "seeds", "purpose"), maxcolwidths=100
        )
    )
    return 0
