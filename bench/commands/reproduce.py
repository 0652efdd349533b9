"""`bench reproduce ROW`.

Run one row's seeds again from its records alone, and say whether they are borne out.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tabulate import tabulate

from bench.commands.options import Subparsers, add_results, add_workers
from bench.commands.places import place, require_folder
from bench.config.load import parse_suite
from bench.config.looks import without_impossible
from bench.errors import UserError, unknown
from bench.record import REPRODUCED, RULES_VERSION, Record, read_record, read_records
from bench.record.store import conditions

if TYPE_CHECKING:
    from bench.runner.cells import Cell
    from bench.runner.work import CellResult

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
    parser.add_argument("--budget", type=float, help="rho of the records, where there are several")
    parser.add_argument(
        "--match", choices=("flops", "tokens"), help="match of the records, where there are both"
    )
    add_results(parser)
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
    from bench.runner.work import Job
    from bench.stats.reproduction import compare

    records = _records(arguments)
    cells = [_cell(record, tuple(arguments.plugin)) for record in records]
    if records[0].provenance.rules_version != RULES_VERSION:
        print(
            f"note: the record was made under rules version "
            f"{records[0].provenance.rules_version}, this is version {RULES_VERSION}"
        )
    require_folder(arguments.out)
    job = Job(arguments.out, arguments.out, f"python -m bench reproduce {arguments.row}")
    results = run_cells(
        cells,
        job,
        arguments.workers,
        lambda done: print(f"{done.cell}: {done.status} {done.detail}"),
    )
    kept = {record.cell.seed: record for record in records}
    reruns = _reruns(results, arguments.out)
    for line in _changed(kept, reruns):
        print(f"note: {line}")
    recorded = {seed: record.loss for seed, record in kept.items() if record.loss is not None}
    again = {seed: record.loss for seed, record in reruns.items() if record.loss is not None}
    comparison = cells[0].suite.comparison
    found = compare(recorded, again, comparison.margin, comparison.alpha)
    table = [
        (seed, recorded[seed], again[seed], difference)
        for seed, difference in found.differences.items()
    ]
    headers = ("seed", "recorded", "rerun", "difference")
    print(tabulate(table, headers=headers, floatfmt=("d", ".6f", ".6f", "+.2e")))
    print(f"{arguments.row}: {found.verdict}: {found.detail}")
    return EXIT_CODES[found.verdict]


def _records(arguments: argparse.Namespace) -> list[Record]:
    """Records of the row at one budget and match; which one is asked for if there are several."""
    folder: Path = arguments.results / arguments.suite
    if not folder.is_dir():
        raise UserError(
            f"There are no records in {str(folder)!r}. Name another --results or --suite."
        )
    everything = [record for _, record in read_records(folder)]
    records = [record for record in everything if record.cell.row == arguments.row]
    if not records:
        raise unknown(
            "row",
            arguments.row,
            {record.cell.row for record in everything},
            f"Rows are looked for in {str(folder)!r}.",
        )
    for option in ("budget", "match"):
        there = sorted({getattr(record.cell, option) for record in records})
        wanted = getattr(arguments, option)
        if wanted is None and len(there) > 1:
            raise UserError(
                f"Row {arguments.row!r} has records at --{option} {' and '.join(map(str, there))}. "
                "Name one of them."
            )
        if wanted is not None and wanted not in there:
            raise UserError(
                f"--{option} is {wanted}; row {arguments.row!r} has records at "
                f"{', '.join(map(str, there))}."
            )
        records = [r for r in records if wanted is None or getattr(r.cell, option) == wanted]
    return records


def _cell(record: Record, given: tuple[Path, ...]) -> "Cell":
    """The cell that a record describes, from nothing but the record.

    Plugins that its suite named are loaded where they still are, and those given.
    """
    from bench.runner.cells import Cell
    from bench.runner.plugins import describe_rows

    cell, row = record.cell, record.row
    config = without_impossible(record.provenance.config)
    said = f"record of {cell.row} seed {cell.seed}"
    suite = parse_suite({**config, "budget": cell.budget, "match": cell.match}, said)
    named = [file for file in map(Path, suite.plugins) if file.exists()]
    plugins = tuple(dict.fromkeys([*named, *given]))
    (card,) = describe_rows([row], plugins)
    return Cell(suite, row, cell.seed, plugins if card.outside else (), card.outside)


def _reruns(results: "list[CellResult]", root: Path) -> dict[int, Record]:
    """Seed -> record of the rerun."""
    found: dict[int, Record] = {}
    for result in results:
        suite, row = result.cell.suite, result.cell.row
        there = root / suite.name / row.name / conditions(suite.budget, suite.match)
        path = there / f"seed-{result.cell.seed}.json"
        if path.exists():
            found[result.cell.seed] = read_record(path)
    return found


def _changed(recorded: Mapping[int, Record], reruns: Mapping[int, Record]) -> list[str]:
    """What is no longer as it was when the records were made."""
    notes: list[str] = []
    for seed, rerun in reruns.items():
        made, now = recorded[seed].provenance, rerun.provenance
        if made.router_hash != now.router_hash:
            notes.append(
                f"the router {rerun.row.router!r} has changed since commit {made.commit[:12]}"
            )
        if made.data_hash != now.data_hash:
            notes.append("the text is not the one of the record")
    return list(dict.fromkeys(notes))
