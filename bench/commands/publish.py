"""Writing what is read: the board, its figures and the pages of studies.

Or finding those that are stale.
"""

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from bench.commands.places import writing
from bench.files import write_atomically

if TYPE_CHECKING:
    from bench.study.config import StudyConfig

COMMAND = "python -m bench leaderboard"
PAGE = "README.md"
SHOWN = 40
"""Lines of a difference that `--check` prints."""


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


def board_text(root: Path) -> str:
    """Render the board of a tree of records."""
    from bench.board import build_board, render_leaderboard

    return render_leaderboard(build_board(root), command=COMMAND)


def write_page(study: "StudyConfig", out: Path, console: Console) -> None:
    """Write the page and its figures, and say where they are."""
    from bench.study.results import study_folder

    folder = study_folder(out, study.name)
    files = page_files(study, folder)
    with writing(folder, f"run `python -m bench study {study.name} --render --out {out}`"):
        for name, text in files.items():
            write_atomically(folder / name, text)
    console.print(f"page     {folder / PAGE}", markup=False)


def page_files(study: "StudyConfig", folder: Path) -> dict[str, str]:
    """File name -> content, of the page and its figures, from the records below `folder`."""
    from bench.board.svg import standalone
    from bench.study.figures import figures
    from bench.study.page import render_page
    from bench.study.results import collect

    results = collect(study, folder)
    drawn = {
        name: standalone(figure)
        for found in results
        for name, figure in figures(study, found).items()
    }
    return {PAGE: render_page(study, results), **drawn}


def stale_pages(out: Path, name: str | None = None) -> list[str]:
    """What is wrong with the pages in a tree of records, a line each; empty where all are fresh."""
    from bench.study.load import load_study
    from bench.study.results import study_folder

    lines: list[str] = []
    for study in [load_study(name)] if name else studies_in(out):
        folder = study_folder(out, study.name)
        for file, text in page_files(study, folder).items():
            path = folder / file
            there = path.read_text(encoding="utf-8") if path.is_file() else ""
            if there != text:
                changes = difflib.unified_diff(
                    there.splitlines(),
                    text.splitlines(),
                    str(path),
                    "from its records",
                    n=0,
                    lineterm="",
                )
                lines += list(changes)[:SHOWN] if file == PAGE else []
                lines.append(
                    f"{path} is not what its records give. Run `python -m bench study {study.name} --render --out {out}`."
                )
    return lines


def studies_in(out: Path) -> "list[StudyConfig]":
    """The studies that have records in a tree."""
    from bench.study.load import load_study
    from bench.study.results import study_folder

    folders = sorted(path for path in study_folder(out, "").glob("*") if path.is_dir())
    return [load_study(folder.name) for folder in folders]
