"""Write the leaderboard, its figures and the pages of studies, or find the stale ones."""

import difflib
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from bench.commands.official import OFFICIAL_ROOT, OWN_ROOT
from bench.commands.places import writing
from bench.files import write_atomically

if TYPE_CHECKING:
    from bench.board import Board
    from bench.figures.drawing import Figure
    from bench.study.config import StudyConfig

COMMAND = "python -m bench leaderboard"
STUDY_PAGE = "README.md"
SHOWN = 40
"""Largest number of lines of a difference that `--check` prints."""


def render(root: Path, target: Path, console: Console) -> None:
    """Write the board and the figures, and print their places."""
    from bench.board import build_board
    from bench.figures.board_figures import write_figures

    boards = build_board(root)
    text, again = _page(boards, root, target), f"run `{command_for(root, target)}`"
    # The board first: if a figure cannot be written, the tables are there at least.
    with writing(target, f"{again}, or with --out FILE to write elsewhere"):
        write_atomically(target, text)
    console.print(f"board    {target}", markup=False)
    for suite, found in _by_suite(boards).items():
        folder = root / suite / "figures"
        with writing(folder, again):
            figures = write_figures(found, folder)
        if figures:
            console.print(f"figures  {folder}/ ({len(figures)} files)", markup=False)


def board_file(root: Path) -> Path:
    """Return the place of the board of a tree of records, unless another is asked for."""
    official = _seen_from(None, root) == OFFICIAL_ROOT
    return Path("leaderboard.md") if official else root / "leaderboard.md"


def command_for(root: Path, target: Path, folder: Path | None = None) -> str:
    """Return the command that renders the board of a tree of records into a file.

    Args:
        root: the tree.
        target: the file.
        folder: folder that the command is run in; the working directory by default.
    """
    trees = {OFFICIAL_ROOT: ["--official"], OWN_ROOT: []}
    tree, file = _seen_from(folder, root), _seen_from(folder, target)
    options = trees.get(tree, ["--results", tree.as_posix()])
    if file != board_file(tree):
        options = [*options, "--out", file.as_posix()]
    return shlex.join([*COMMAND.split(), *options])


def _seen_from(folder: Path | None, path: Path) -> Path:
    """Return a path relative to a folder; from the working directory, the whole path if outside."""
    whole, here = path.resolve(), (folder or Path.cwd()).resolve()
    if folder is None and not whole.is_relative_to(here):
        return whole
    return Path(os.path.relpath(whole, here))


def _page(boards: "list[Board]", root: Path, target: Path) -> str:
    """Render the text of the board."""
    from bench.pages import render_leaderboard

    # Links and the command start at the folder of the page, so that both may move together.
    folder = os.path.relpath(root, target.parent).replace(os.sep, "/")
    command = command_for(root, target, target.parent)
    return render_leaderboard(boards, command=command, folder=folder)


def _by_suite(boards: "list[Board]") -> "dict[str, list[Board]]":
    found: dict[str, list[Board]] = {}
    for board in boards:
        found.setdefault(board.suite, []).append(board)
    return found


def stale_board(root: Path, target: Path) -> list[str]:
    """List the faults of the board and its figures, one line each; empty if all are current.

    The page is compared byte for byte, a figure by the digest of its data.
    """
    from bench.board import build_board
    from bench.figures.board_figures import figure_files, figures_there

    boards, command = build_board(root), command_for(root, target)
    lines = _changed(target, _page(boards, root, target), command)
    for suite, found in _by_suite(boards).items():
        folder = root / suite / "figures"
        made = figure_files(found, folder)
        lines += [line for path, figure in made.items() for line in _stale(path, figure, command)]
        # A figure of a row that is gone would stay for ever otherwise.
        for path in sorted(figures_there(folder) - made.keys()):
            lines.append(f"{path} is a figure that no record gives. Run `{command}`.")
    return lines


def _changed(path: Path, text: str, command: str) -> list[str]:
    """Return the difference between a page on disk and its text; empty if they are equal."""
    there = path.read_text(encoding="utf-8") if path.is_file() else ""
    if there == text:
        return []
    sides = there.splitlines(), text.splitlines()
    # Show the beginning of the difference, which usually tells the cause.
    changes = list(difflib.unified_diff(*sides, str(path), "from its records", n=0, lineterm=""))
    fault = f"{path} does not agree with its records: {len(changes)} lines of difference."
    return [*changes[:SHOWN], f"{fault} Run `{command}` and commit the result."]


def _stale(path: Path, figure: "Figure", command: str) -> list[str]:
    """Return a fault if a figure on disk shows other data, else nothing."""
    from bench.figures.drawing import digest_of

    # Compare the data alone: another version of a library may draw them differently.

    there = path.read_text(encoding="utf-8") if path.is_file() else ""
    if digest_of(there) == figure.digest:
        return []
    return [f"{path} does not agree with its records. Run `{command}`."]


def write_page(study: "StudyConfig", out: Path, console: Console, given: str | None = None) -> None:
    """Write a study's page and its figures, and print their place.

    Args:
        study: the study.
        out: tree of records.
        console: the console.
        given: the name or the file by which the user named the study; None for its name.
    """
    from bench.study.results import study_folder

    folder = study_folder(out, study.name)
    page, figures = page_files(study, folder)
    # A study's figures are files of their own, so they carry their colours with them.
    files = {STUDY_PAGE: page} | {name: figure.standalone() for name, figure in figures.items()}
    with writing(folder, f"run `{_study_command(given or study.name, '--render', out)}`"):
        for name, text in files.items():
            write_atomically(folder / name, text)
    console.print(f"page     {folder / STUDY_PAGE}", markup=False)


def _study_command(given: str, option: str, out: Path) -> str:
    """Return a command on the page of a study that is given by its name or file."""
    return shlex.join(["python", "-m", "bench", "study", given, option, "--out", str(out)])


def page_files(study: "StudyConfig", folder: Path) -> "tuple[str, dict[str, Figure]]":
    """Return the page and its figures (file name -> figure), from the records below `folder`."""
    from bench.study.figures import study_figures
    from bench.study.page import render_page
    from bench.study.results import collect

    results = collect(study, folder)
    drawn = {name: one for found in results for name, one in study_figures(study, found).items()}
    return render_page(study, results), drawn


def stale_pages(out: Path, name: str | None = None) -> list[str]:
    """List the faults of the study pages in a tree of records; empty if all are current."""
    from bench.study.read_study import load_study
    from bench.study.results import study_folder

    lines: list[str] = []
    for study in [load_study(name)] if name else studies_in(out):
        folder = study_folder(out, study.name)
        command = _study_command(name or study.name, "--render", out)
        page, figures = page_files(study, folder)
        lines += _changed(folder / STUDY_PAGE, page, command)
        for file, figure in figures.items():
            lines += _stale(folder / file, figure, command)
        for path in sorted({*folder.glob("*.svg")} - {folder / file for file in figures}):
            lines.append(f"{path} is a figure that no record gives. Delete it.")
    return lines


def studies_in(out: Path) -> "list[StudyConfig]":
    """Return the studies that have records in a tree, of those that come with the bench."""
    from bench.study.read_study import load_study, study_names

    names = set(study_names())
    return [load_study(name) for name in _names_in(out) if name in names]


def unknown_studies_in(out: Path) -> list[str]:
    """Return a line for each study in a tree whose declaration is a file of the user."""
    from bench.study.read_study import study_names

    left = [name for name in _names_in(out) if name not in study_names()]
    return [
        f"passed over: the page of {name!r}, a study of your own. Name its file: "
        f"`{_study_command('FILE.yaml', '--check', out)}`."
        for name in left
    ]


def _names_in(out: Path) -> list[str]:
    from bench.study.results import study_folder

    return sorted(path.name for path in study_folder(out, "").glob("*") if path.is_dir())
