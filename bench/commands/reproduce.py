"""`bench reproduce ROW`.

Run one row's seeds again from its records alone, and say whether they are borne out.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tabulate import tabulate

from bench.commands.options import Subparsers, add_workers
from bench.commands.places import place, require_folder
from bench.config.load import parse_suite
from bench.config.looks import without_impossible
from bench.config.suite import RowConfig, SuiteConfig
from bench.errors import UserError, unknown
from bench.record import REPRODUCED, RULES_VERSION, Record, read_records

if TYPE_CHECKING:
    from bench.runner.cells import Cell

EXIT_CODES = {"confirmed": 0, "refuted": 1, "inconclusive": 1}


def add_parser(subparsers: Subparsers) -> None:
    """Declare the arguments."""
    parser = subparsers.add_parser(
        "reproduce", help="run a row again from its records and compare", description=__doc__
    )
    parser.add_argument("row", help="row of the board, e.g. mlp_gate or random@ffn")
    parser.add_argument(
        "--suite", default="quick", help="suite whose records to take (default: quick)"
    )
    parser.add_argument(
        "--results", type=place, default=Path("results"), help="tree of records (default: results)"
    )
    parser.add_argument(
        "--out",
        type=place,
        default=Path("runs") / REPRODUCED,
        help="where the reruns go (default: runs/reproduce)",
    )
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        type=place,
        metavar="FILE.py",
        help="also load routers from this file",
    )
    add_workers(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Rerun, compare, print; 0 only if the row is confirmed."""
    from bench.runner.pool import run_cells
    from bench.stats.reproduction import compare

    records = _records(arguments.results / arguments.suite, arguments.row)
    cells = [_cell(record, tuple(arguments.plugin)) for record in records]
    for line in _changed(records[0], cells[0]):
        print(f"note: {line}")
    require_folder(arguments.out)
    run_cells(
        cells,
        arguments.out,
        f"python -m bench reproduce {arguments.row}",
        arguments.workers,
        lambda done: print(f"{done.cell}: {done.status}"),
    )
    rerun = {record.cell.seed: record for _, record in _reruns(cells, arguments.out)}
    recorded = {record.cell.seed: record.loss for record in records if record.loss is not None}
    again = {seed: record.loss for seed, record in rerun.items() if record.loss is not None}
    found = compare(
        recorded, again, cells[0].suite.comparison.margin, cells[0].suite.comparison.alpha
    )
    table = [
        (seed, recorded[seed], again[seed], difference)
        for seed, difference in found.differences.items()
    ]
    print(
        tabulate(
            table,
            headers=("seed", "recorded", "rerun", "difference"),
            floatfmt=("d", ".6f", ".6f", "+.2e"),
        )
    )
    print(f"{arguments.row}: {found.verdict}: {found.detail}")
    return EXIT_CODES[found.verdict]


def _records(folder: Path, row: str) -> list[Record]:
    if not folder.is_dir():
        raise UserError(
            f"There are no records in {str(folder)!r}. Name another --results or --suite."
        )
    everything = [record for _, record in read_records(folder)]
    records = [record for record in everything if record.cell.row == row]
    if not records:
        raise unknown(
            "row",
            row,
            {record.cell.row for record in everything},
            f"Rows are looked for in {str(folder)!r}.",
        )
    return records


def _cell(record: Record, plugins: tuple[Path, ...]) -> "Cell":
    """The cell that a record describes, from nothing but the record."""
    from bench.runner.cells import Cell

    cell = record.cell
    data = {
        **without_impossible(record.provenance.config),
        "budget": cell.budget,
        "match": cell.match,
    }
    suite: SuiteConfig = parse_suite(data, f"record of {cell.row} seed {cell.seed}")
    listed = {row.name: row for row in suite.rows}
    row = listed.get(cell.row) or RowConfig(
        name=cell.row,
        router=cell.router,
        options=cell.options,
        role=cell.role,
        control=cell.control or "",
    )
    return Cell(suite, row, cell.seed, plugins)


def _changed(record: Record, cell: "Cell") -> list[str]:
    """What is no longer as it was when the record was made."""
    made = record.provenance
    notes: list[str] = []
    if made.rules_version != RULES_VERSION:
        notes.append(
            f"the record was made under rules version {made.rules_version}, this is version {RULES_VERSION}"
        )
    if made.plugin_hash != cell.source_hash:
        notes.append(
            f"the source of router {cell.row.router!r} has changed since commit {made.commit[:12]}"
        )
    return notes


def _reruns(cells: "list[Cell]", root: Path) -> list[tuple[Path, Record]]:
    return [
        (cell.path(root), Record.read(cell.path(root)))
        for cell in cells
        if cell.path(root).exists()
    ]
