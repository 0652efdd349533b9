"""`bench leaderboard`: render leaderboard.md from records, or check that it is current."""

import argparse
from pathlib import Path

from bench.commands.options import Subparsers, add_results
from bench.commands.places import place
from bench.commands.write_leaderboard import (
    board_file,
    command_for,
    render,
    stale_board,
    stale_pages,
    unknown_studies_in,
)
from bench.errors import UserError
from bench.files import console


def add_parser(subparsers: Subparsers) -> None:
    """Declare the arguments."""
    parser = subparsers.add_parser("leaderboard", description=__doc__)
    add_results(parser)
    parser.add_argument(
        "--out",
        type=place,
        help="file to write (default: leaderboard.md in the tree; with --official, next to it)",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; exit with 1 unless the pages and the data of the figures agree with "
        "the records",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Render, or check and return 1 if a file on disk is stale."""
    root: Path = arguments.results
    target: Path = arguments.out or board_file(root)
    if not arguments.check:
        render(root, target, console())
        return 0
    if not target.is_file():
        raise UserError(
            f"{target} does not exist. Run `{command_for(root, target)}` and commit the result."
        )
    # All faults at once, of the board, its figures and the study pages.
    stale = [*stale_board(root, target), *stale_pages(root)]
    said = stale or [f"{target} agrees with the records in {root}/."]
    print("\n".join([*said, *unknown_studies_in(root)]))
    return int(bool(stale))
