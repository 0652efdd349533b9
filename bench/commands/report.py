"""`bench report`: render one self-contained page with everything that the records show."""

import argparse
import webbrowser
from pathlib import Path

from bench.commands.options import Subparsers, add_results
from bench.commands.places import place, writing
from bench.files import write_atomically


def add_parser(subparsers: Subparsers) -> None:
    """Declare the arguments."""
    parser = subparsers.add_parser("report", description=__doc__)
    add_results(parser)
    parser.add_argument(
        "--out", type=place, help="file to write (default: report.html inside the tree)"
    )
    parser.add_argument("--open", action="store_true", help="open it in a browser")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the page."""
    from bench.board import build_board
    from bench.pages import render_report
    from bench.record.speed import read_speeds

    target: Path = arguments.out or arguments.results / "report.html"
    page = render_report(build_board(arguments.results), read_speeds(arguments.results))
    with writing(target, "run the same command, or give another --out"):
        write_atomically(target, page)
    print(f"report   {target}")
    if arguments.open:
        webbrowser.open(target.resolve().as_uri())
    return 0
