"""`bench speed`: time the rows of a suite against its dense model, on this machine."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tabulate import tabulate

from bench.commands.official import OFFICIAL_ROOT, OWN_ROOT, check_device, require_clean_tree
from bench.commands.options import (
    Subparsers,
    add_assignments,
    add_device,
    add_plugin,
    overrides,
)
from bench.commands.places import place, require_folder, writing
from bench.config.read_suite import load_suite
from bench.config.row import RowConfig
from bench.config.suite import SuiteConfig

if TYPE_CHECKING:
    from bench.record.speed import SpeedRun

REFERENCE = RowConfig(name="dense", role="bracket")
"""The row that others are compared with, where a suite does not list it."""


def add_parser(subparsers: Subparsers) -> None:
    """Declare the arguments."""
    parser = subparsers.add_parser("speed", description=__doc__)
    parser.add_argument(
        "--suite", default="quick", help="name of a suite or a YAML file (default: quick)"
    )
    parser.add_argument(
        "--routers",
        default="all",
        help="comma-separated rows or routers; all = the suite's roster (default)",
    )
    add_plugin(parser)
    parser.add_argument("--backbone", help="size of the decoder (default: the suite's)")
    parser.add_argument(
        "--repeats", type=_repeats, default=20, help="timed calls of each work (default: 20)"
    )
    parser.add_argument(
        "--windows",
        type=_repeats,
        default=4,
        help="validation windows in an evaluation, for each domain (default: 4)",
    )
    parser.add_argument(
        "--decode",
        action="store_true",
        help="also time decoding token by token, at batch sizes 1, 8 and 64",
    )
    parser.add_argument(
        "--memory",
        action="store_true",
        help="also measure the peak memory of training steps, each row in a process of its own",
    )
    add_assignments(parser)
    add_device(parser)
    trees = parser.add_mutually_exclusive_group()
    trees.add_argument("--out", type=place, help="tree to write to (default: runs)")
    trees.add_argument(
        "--official", action="store_true", help="write to results/; needs a clean tree"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Time the rows, write the file and print its tables."""
    from bench.data import check_windows, load_corpus
    from bench.record.speed import require_rows_kept, write_speed
    from bench.runner.cells import plan_cells
    from bench.runner.plugins import plugin_files
    from bench.runner.preflight import check_cells, check_suite
    from bench.runner.rows import parse_rows, unmet
    from bench.speed.measure import measure_speeds

    suite = load_suite(arguments.suite, overrides(arguments), arguments.set)
    check_device(suite.device)
    if arguments.official:
        require_clean_tree()
    root: Path = OFFICIAL_ROOT if arguments.official else arguments.out or OWN_ROOT
    check_suite(suite)
    plugins = plugin_files(suite, arguments.plugin)
    parsed = parse_rows(suite, arguments.routers, plugins)
    said = lambda text: print(f"{text} ...", file=sys.stderr, flush=True)  # noqa: E731
    corpus = load_corpus(suite.data.at(0), said=said)
    check_windows(corpus, suite)
    for name, reason in (reasons := unmet(suite, corpus, parsed)).items():
        print(f"skipped  {name}: {reason}")
    # A twin has the speed of its original.
    rows = [row for row in parsed.without(reasons).rows if row.router_seed == 0]
    cells = plan_cells(suite, [_reference(suite), *rows], [0], plugins, parsed.outside)
    # One cell for each row; the reference may be listed among them too.
    cells = list({cell.row.name: cell for cell in cells if not cell.replica}.values())
    check_cells(cells)
    if arguments.official:
        rows = [cell.row.name for cell in cells]
        require_rows_kept(_file_name(cells[0].suite), rows, root)
    require_folder(root)
    command = "python -m bench " + shlex.join(sys.argv[1:])
    found = measure_speeds(
        cells,
        corpus,
        arguments.repeats,
        arguments.windows,
        command,
        arguments.decode,
        arguments.memory,
        said,
    )
    print(shown(found))
    with writing(root, "run the same command, or give another --out"):
        print(f"speed    {write_speed(found, root)}")
    return 0


def shown(run: "SpeedRun") -> str:
    """Return the tables of a run as text."""
    from bench.pages.speed import tables, title

    made = (tabulate(lines, header) for header, lines in tables(run))
    return "\n\n".join((title(run), *made))


def _file_name(suite: SuiteConfig) -> str:
    """Return the name that the file of a suite's rows will have."""
    from bench.record.speed import name_of

    size = (suite.backbone, suite.train.batch_size)
    return name_of(suite.name, *size, suite.device, suite.dtype, suite.compile)


def _reference(suite: SuiteConfig) -> RowConfig:
    """Return the suite's dense row, or one of our own."""
    listed = {row.name: row for row in suite.rows}
    return listed.get(REFERENCE.name, REFERENCE)


def _repeats(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"it is {text!r}; give a whole number, 1 or more")
    return int(text)
