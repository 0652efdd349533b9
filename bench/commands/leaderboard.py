"""`bench leaderboard`: render leaderboard.md from records, or check that it is fresh."""

import argparse
import difflib
from pathlib import Path

from rich.console import Console

from bench.commands.options import Subparsers
from bench.commands.places import place, writing
from bench.errors import UserError
from bench.files import write_atomically

COMMAND = "python -m bench leaderboard"
SHOWN = 40
"""Lines of a difference that `--check` prints."""


def add_parser(subparsers: Subparsers) -> None:
    """Declare the arguments."""
    parser = subparsers.add_parser("leaderboard", help="render leaderboard.md from records", description=__doc__)
    parser.add_argument("--results", type=place, default=Path("results"), help="tree of records (default: results)")
    parser.add_argument("--out", type=place, help="file to write (default: leaderboard.md; for another tree, inside it)")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 unless the file is byte for byte what the records give"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Render or check; 1 if the file on disk is stale."""
    root: Path = arguments.results
    target: Path = arguments.out or (Path("leaderboard.md") if root == Path("results") else root / "leaderboard.md")
    if not arguments.check:
        render(root, target, Console(highlight=False))
        return 0
    return max(_check(root, target), _check_studies(root))


def _check(root: Path, target: Path) -> int:
    """Whether the board on disk is stale, with what differs."""
    text = _text(root)
    if not target.is_file():
        raise UserError(f"{target} does not exist. Run `{COMMAND}` and commit what it writes.")
    there = target.read_text(encoding="utf-8")
    if there != text:
        changes = list(difflib.unified_diff(there.splitlines(), text.splitlines(), str(target), f"from {root}/", n=0, lineterm=""))
        print("\n".join(changes[:SHOWN]))
        print(f"{target} is not what {root}/ gives: {len(changes)} lines of difference. Run `{COMMAND}` and commit what it writes.")
        return 1
    print(f"{target} is what {root}/ gives.")
    return 0


def _check_studies(root: Path) -> int:
    """Whether the page of a study in the tree is stale, with what differs."""
    from bench.commands.study import stale_pages

    stale = stale_pages(root)
    if stale:
        print("\n".join(stale))
    return int(bool(stale))


def render(root: Path, target: Path, console: Console) -> None:
    """Write the board and the figures, and say where they are."""
    from bench.board import build_board, render_leaderboard, write_figures

    boards = build_board(root)
    text, again = render_leaderboard(boards, command=COMMAND), f"run `{COMMAND} --results {root}`"
    with writing(target, f"{again}, or with --out FILE to write elsewhere"):
        write_atomically(target, text)
    console.print(f"board    {target}", markup=False)
    for suite in dict.fromkeys(board.suite for board in boards):
        folder = root / suite / "figures"
        with writing(folder, again):
            figures = write_figures([board for board in boards if board.suite == suite], folder)
        if figures:
            console.print(f"figures  {folder}/ ({len(figures)} files)", markup=False)


def _text(root: Path) -> str:
    from bench.board import build_board, render_leaderboard

    return render_leaderboard(build_board(root), command=COMMAND)
