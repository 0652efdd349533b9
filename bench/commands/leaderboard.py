"""`bench leaderboard`: render leaderboard.md from records, or check that it is fresh."""

import argparse
import difflib
from pathlib import Path

from rich.console import Console

from bench.commands.options import Subparsers
from bench.commands.places import place
from bench.commands.publish import COMMAND, SHOWN, board_text, render, stale_pages
from bench.errors import UserError


def add_parser(subparsers: Subparsers) -> None:
    """Declare the arguments."""
    parser = subparsers.add_parser(
        "leaderboard", help="render leaderboard.md from records", description=__doc__
    )
    parser.add_argument(
        "--results", type=place, default=Path("results"), help="tree of records (default: results)"
    )
    parser.add_argument(
        "--out",
        type=place,
        help="file to write (default: leaderboard.md; for another tree, inside it)",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; exit with 1 unless the file is byte for byte what the records give",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Render or check; 1 if the file on disk is stale."""
    root: Path = arguments.results
    target: Path = arguments.out or (
        Path("leaderboard.md") if root == Path("results") else root / "leaderboard.md"
    )
    if not arguments.check:
        render(root, target, Console(highlight=False))
        return 0
    return max(_check(root, target), _check_studies(root))


def _check(root: Path, target: Path) -> int:
    """Whether the board on disk is stale, with what differs."""
    text = board_text(root)
    if not target.is_file():
        raise UserError(f"{target} does not exist. Run `{COMMAND}` and commit what it writes.")
    there = target.read_text(encoding="utf-8")
    if there != text:
        changes = list(
            difflib.unified_diff(
                there.splitlines(),
                text.splitlines(),
                str(target),
                f"from {root}/",
                n=0,
                lineterm="",
            )
        )
        print("\n".join(changes[:SHOWN]))
        print(
            f"{target} is not what {root}/ gives: {len(changes)} lines of difference. Run `{COMMAND}` and commit what it writes."
        )
        return 1
    print(f"{target} is what {root}/ gives.")
    return 0


def _check_studies(root: Path) -> int:
    """Whether the page of a study in the tree is stale, with what differs."""
    stale = stale_pages(root)
    if stale:
        print("\n".join(stale))
    return int(bool(stale))
