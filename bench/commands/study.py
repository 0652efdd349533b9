"""`bench study`: run the missing cells of a study, judge its claims, and write its page."""

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from bench.commands.official import OFFICIAL_ROOT, OWN_ROOT, check_device, require_clean_tree
from bench.commands.options import Subparsers, add_dry_run, add_executor, cluster_settings
from bench.commands.places import place, require_folder
from bench.commands.predict import dry_run, ordered
from bench.commands.progress import Progress
from bench.commands.write_leaderboard import (
    stale_pages,
    studies_in,
    unknown_studies_in,
    write_page,
)
from bench.errors import UserError
from bench.files import console

if TYPE_CHECKING:
    from bench.runner.cells import Cell
    from bench.runner.resume_cell import CellResult
    from bench.study.config import StudyConfig


def add_parser(subparsers: Subparsers) -> None:
    """Declare the arguments."""
    parser = subparsers.add_parser("study", description=__doc__)
    parser.add_argument(
        "study",
        nargs="?",
        help="name of a study or a YAML file; may be left out with --check or --render",
    )
    parser.add_argument("--size", default="small", help="size of the study (default: small)")
    parser.add_argument(
        "--out",
        type=place,
        help="tree of records; the study goes into its folder studies/ (default: runs)",
    )
    parser.add_argument(
        "--official", action="store_true", help="use the tree results/; a run needs a clean tree"
    )
    parser.add_argument(
        "--render",
        action="store_true",
        help="run nothing; write the page from the existing records",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; exit with 1 unless the pages agree with their records",
    )
    add_executor(parser)
    add_dry_run(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the missing cells and write the page.

    Return 1 if a cell failed or broke a rule, or if a checked page is stale.
    """
    from bench.study.read_study import load_study

    if arguments.official and arguments.out:
        raise UserError("--official writes into results/: drop --out.")
    # Checking and rendering read the tree that a run would write.
    out: Path = arguments.out or (OFFICIAL_ROOT if arguments.official else OWN_ROOT)
    shown = console()
    if arguments.study is None:
        for line in unknown_studies_in(out):
            shown.print(line, markup=False)
    if arguments.check:
        stale = stale_pages(out, arguments.study)
        print("\n".join(stale) or f"The pages of studies below {out} agree with their records.")
        return 1 if stale else 0
    if arguments.render:
        for study in [load_study(arguments.study)] if arguments.study else studies_in(out):
            write_page(study, out, shown)
        return 0
    if arguments.study is None:
        raise UserError("Name the study to run; `python -m bench list studies` shows them.")
    study = load_study(arguments.study)
    cells = _planned(study, arguments, out, shown)
    results = _run_cells(cells, arguments, out, shown)
    if arguments.dry_run:
        return 0
    write_page(study, out, shown)
    return int(any(result.bad for result in results))


def _run_cells(
    cells: list["Cell"], arguments: argparse.Namespace, out: Path, shown: Console
) -> list["CellResult"]:
    """Run the missing cells of all settings as one schedule; a dry run prints it."""
    from bench.executors.executor import open_executor
    from bench.runner.resume_cell import CHECKPOINTS, Job
    from bench.runner.schedule import run_cells

    # Records go to the tree's store, and the study's folder holds references.
    job = Job(out, out, "python -m bench " + shlex.join(sys.argv[1:]))
    chosen = (arguments.executor, arguments.workers, cells[0].suite.device)
    with open_executor(*chosen, cluster_settings(arguments), out) as executor:
        cells = ordered(cells, out, executor.workers)
        if arguments.dry_run:
            print("\n".join(dry_run(cells, out, executor.workers)))
            return []
        with Progress(shown, cells, out, out / CHECKPOINTS, executor.workers) as progress:
            known = progress.expected_kept
            return run_cells(cells, job, executor, progress, progress.starting, known)


def _planned(
    study: "StudyConfig", arguments: argparse.Namespace, out: Path, shown: Console
) -> list["Cell"]:
    """Return the cells of one size, setting by setting, on devices that can run them."""
    from bench.study.cells import study_cells
    from bench.study.results import study_folder

    size = study.size(arguments.size)
    if arguments.official and not arguments.dry_run:
        require_clean_tree()
    cells, skipped = study_cells(study, size)
    # A row that a setting cannot run is no failure: the page names it.
    for line in skipped:
        shown.print(f"skipped  {line}", markup=False)
    found: list[Cell] = []
    for setting, planned in cells.items():
        check_device(planned[0].suite.device, here=arguments.executor == "local")
        # Each size and setting has its own tree, so that sizes never share a verdict.
        tree = study_folder(out, study.name) / arguments.size / setting
        if not arguments.dry_run:
            require_folder(tree)
        said = f"{study.name}, {setting}: {len(planned)} cells, records in {tree}/"
        shown.print(said, markup=False)
        found += [replace(cell, tree=tree) for cell in planned]
    return found
