"""`bench run`: train and judge routers, then render the board of all records in the tree."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from bench.commands.official import OFFICIAL_ROOT, OWN_ROOT, check_device, require_clean_tree
from bench.commands.options import (
    Subparsers,
    add_assignments,
    add_device,
    add_dry_run,
    add_executor,
    add_suite,
    cluster_settings,
    natural,
    overrides,
    parse_seeds,
    seconds,
)
from bench.commands.parallel import Launch, add_parallel
from bench.commands.places import place, require_file, require_folder
from bench.commands.predict import dry_run, ordered
from bench.commands.progress import Progress
from bench.config.read_suite import load_suite
from bench.config.suite import SuiteConfig
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.data import Corpus
    from bench.executors.executor import Executor
    from bench.runner.cells import Cell
    from bench.runner.resume_cell import CellResult


def add_parser(subparsers: Subparsers) -> None:
    """Declare the arguments."""
    parser = subparsers.add_parser("run", description=__doc__)
    add_suite(parser)
    parser.add_argument(
        "--seeds", help="number of seeds, or a comma-separated list (default: the suite's)"
    )
    parser.add_argument(
        "--seed-start", type=natural, default=0, help="added to every seed (default: 0)"
    )
    add_assignments(parser)
    add_device(parser)
    parser.add_argument("--out", type=place, help="tree of records to write (default: runs)")
    parser.add_argument(
        "--official",
        action="store_true",
        help="write results/ and leaderboard.md; needs a clean tree and the whole roster",
    )
    add_executor(parser)
    add_parallel(parser)
    parser.add_argument(
        "--checkpoint-seconds",
        type=seconds,
        default=20.0,
        help="time between two checkpoints of a cell (default: 20)",
    )
    parser.add_argument(
        "--keep-weights",
        action="store_true",
        help="keep the trained weights of each cell in the tree, for `bench sample`",
    )
    add_dry_run(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the missing cells, print a line per cell, and render the board.

    Return 1 if a cell failed or broke a rule. Under torchrun all ranks share each cell, and rank 0
    alone prints and writes.
    """
    launch = Launch.read()
    with launch.joined():
        return _run(arguments, launch)


def _run(arguments: argparse.Namespace, launch: Launch) -> int:
    from bench.commands.write_leaderboard import board_file, render
    from bench.executors.executor import open_executor

    shown, suite, root = launch.console(), _suite(arguments, launch), _root(arguments)
    cells, board = _plan(arguments, suite, root, shown), board_file(root)
    # Find unwritable places now, and not after hours of training.
    if not arguments.dry_run:
        for folder in dict.fromkeys((root, board.parent)):
            require_folder(folder)
        require_file(board)
    name, workers = launch.executor(arguments.executor, arguments.workers)
    settings = cluster_settings(arguments)
    with open_executor(name, workers, suite.device, settings, root) as executor:
        # Ranks share each cell, so all of them take the order of rank 0.
        cells = launch.agreed(ordered(cells, root, executor.workers))
        if arguments.dry_run:
            if not launch.rank:
                print("\n".join(dry_run(cells, root, executor.workers)))
            return 0
        results = _run_cells(arguments, launch, executor, cells, root)
    # If every cell crashed, there is nothing new to show.
    if not launch.rank and any(result.status != "crashed" for result in results):
        render(root, board, shown)
    return int(any(result.bad for result in results))


def _suite(arguments: argparse.Namespace, launch: Launch) -> SuiteConfig:
    """Return the suite with the fields that the command line and the launch replace."""
    changes = overrides(arguments)
    suite = load_suite(arguments.suite, changes, arguments.set)
    # The launch fixes fields that depend on the suite, so the suite is read again with them.
    if fixed := launch.overrides(arguments.parallel, suite):
        suite = load_suite(arguments.suite, changes | fixed, arguments.set)
    check_device(suite.device, here=arguments.executor == "local")
    return suite


def _plan(
    arguments: argparse.Namespace, suite: SuiteConfig, root: Path, shown: Console
) -> list["Cell"]:
    """Return the cells of a run after all checks, and print what they are.

    Raises:
        UserError: an argument, a row or a plugin that does not fit the suite.
    """
    from bench.data import check_windows, load_corpus
    from bench.runner.cells import plan_cells, sensitivity_rows
    from bench.runner.controls import with_controls
    from bench.runner.plugins import plugin_files
    from bench.runner.preflight import check_cells, check_suite
    from bench.runner.rows import parse_rows, unmet

    # Mistakes on the command line are found before a long text is read.
    seeds = _seeds(arguments, suite)
    check_suite(suite)
    plugins = plugin_files(suite, arguments.plugin)
    parsed = parse_rows(suite, arguments.routers, plugins)
    corpus = load_corpus(suite.data.at(0), said=lambda line: shown.print(line, markup=False))
    shown.print(_about(corpus, suite), markup=False)
    check_windows(corpus, suite)
    # A row that this corpus or regime cannot serve is skipped with a reason.
    for name, reason in (reasons := unmet(suite, corpus, parsed)).items():
        shown.print(f"skipped  {name}: {reason}", markup=False)
    suite, parsed, said = with_controls(suite, parsed.without(reasons))
    for line in said:
        shown.print(line, markup=False)
    cells = plan_cells(suite, parsed.rows, seeds, plugins, parsed.outside)
    shown.print(
        f"{suite.name}: {len(parsed.rows)} rows x {len(seeds)} seeds, {len(cells)} cells, "
        f"{len(corpus.domains)} domains, records in {root}/",
        markup=False,
    )
    # The official board also shows how each row depends on its learning rate.
    if arguments.official:
        swept = sensitivity_rows(suite, parsed.rows)
        cells += plan_cells(suite, swept, [suite.sensitivity.seed])
    check_cells(cells)
    return cells


def _run_cells(
    arguments: argparse.Namespace,
    launch: Launch,
    executor: "Executor",
    cells: list["Cell"],
    root: Path,
) -> list["CellResult"]:
    """Run the cells that have no record, in order, and show the progress."""
    from bench.runner.resume_cell import CHECKPOINTS, Job
    from bench.runner.schedule import run_cells

    command = "python -m bench " + shlex.join(sys.argv[1:])
    job = Job(
        root, root, command, arguments.checkpoint_seconds, keep_weights=arguments.keep_weights
    )
    shown, checkpoints = launch.console(), root / CHECKPOINTS
    with Progress(shown, cells, root, checkpoints, executor.workers) as progress:
        known = launch.agreed(progress.expected_kept)
        return run_cells(cells, job, executor, progress, progress.starting, known)


def _about(corpus: "Corpus", suite: SuiteConfig) -> str:
    """Return the whole card of a user's own text, and one line about ours."""
    from bench.data import corpus_card, corpus_line

    own = suite.data.source in ("local", "hub")
    return corpus_card(corpus, suite.data) if own else corpus_line(corpus, suite.data)


def _seeds(arguments: argparse.Namespace, suite: SuiteConfig) -> list[int]:
    """Return the seeds, shifted by `--seed-start`, so that pilot runs never use a board's."""
    given = arguments.seeds
    seeds = parse_seeds(given) if given is not None else range(suite.seeds)
    return [arguments.seed_start + seed for seed in seeds]


def _root(arguments: argparse.Namespace) -> Path:
    if not arguments.official:
        return arguments.out or OWN_ROOT
    if arguments.routers != "all" or arguments.plugin or arguments.out:
        raise UserError(
            "--official runs the suite's whole roster into results/: drop --routers, --plugin and "
            "--out."
        )
    # An official record names its commit, so nothing may differ from it.
    if not arguments.dry_run:
        require_clean_tree()
    return OFFICIAL_ROOT
