"""`bench study`: run the missing cells of a study, judge its claims, and write its page."""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
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

    Return 1 if a cell failed, or if a checked page is stale.
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
    cells = _planned(study, arguments, shown)
    if arguments.dry_run:
        every = [cell for planned in cells.values() for cell in planned]
        print("\n".join(dry_run(every, out, arguments.workers)))
        return 0
    failed = _run_cells(study, cells, arguments, out, shown)
    write_page(study, out, shown)
    return 1 if failed else 0


def _run_cells(
    study: "StudyConfig",
    cells: Mapping[str, Sequence["Cell"]],
    arguments: argparse.Namespace,
    out: Path,
    shown: Console,
) -> bool:
    """Run the missing cells of one size, setting after setting. Return whether a cell failed."""
    from bench.executors.executor import open_executor
    from bench.runner.resume_cell import CHECKPOINTS, Job
    from bench.runner.schedule import run_cells
    from bench.study.results import study_folder

    command = "python -m bench " + shlex.join(sys.argv[1:])
    # Each size and setting has its own folder, so that sizes never share a verdict.
    roots = {name: study_folder(out, study.name) / arguments.size / name for name in cells}
    for folder in roots.values():
        require_folder(folder)
    failed, device = False, next(iter(cells.values()))[0].suite.device
    chosen = (arguments.executor, arguments.workers, device, cluster_settings(arguments))
    with open_executor(*chosen, out) as executor:
        in_order = {name: ordered(some, out, executor.workers) for name, some in cells.items()}
        every = [cell for planned in in_order.values() for cell in planned]
        with Progress(shown, every, out, out / CHECKPOINTS, executor.workers) as progress:
            for setting, planned in in_order.items():
                root = roots[setting]
                said = f"{study.name}, {setting}: {len(planned)} cells, records in {root}/"
                shown.print(said, markup=False)
                # Records go to the tree's store, and the study's folder holds references.
                told = (progress, progress.starting, progress.expected_kept)
                results = run_cells(planned, Job(root, out, command), executor, *told)
                failed |= any(one.status in ("crashed", "failed", "diverged") for one in results)
    return failed


def _planned(
    study: "StudyConfig", arguments: argparse.Namespace, shown: Console
) -> Mapping[str, Sequence["Cell"]]:
    """Return setting -> cells of one size, on devices that can run them."""
    from bench.study.cells import study_cells

    size = study.size(arguments.size)
    if arguments.official and not arguments.dry_run:
        require_clean_tree()
    cells, skipped = study_cells(study, size)
    # A row that a setting cannot run is no failure: the page names it.
    for line in skipped:
        shown.print(f"skipped  {line}", markup=False)
    for planned in cells.values():
        check_device(planned[0].suite.device, here=arguments.executor == "local")
    return cells
