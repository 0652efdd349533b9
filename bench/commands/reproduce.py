"""`bench reproduce ROW`: run a row's seeds again from its records alone, and compare the losses."""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tabulate import tabulate

from bench.commands.official import check_device
from bench.commands.options import Subparsers, add_records, add_workers, name_of_suite
from bench.commands.places import place, require_folder
from bench.errors import UserError, unknown
from bench.record import REPRODUCED, RULES_VERSION, Record, read_records
from bench.record.store import conditions

if TYPE_CHECKING:
    from bench.runner.cells import Cell
    from bench.runner.resume_cell import CellResult

EXIT_CODES = {"confirmed": 0, "refuted": 1, "inconclusive": 1}


def add_parser(subparsers: Subparsers) -> None:
    """Declare the arguments."""
    parser = subparsers.add_parser("reproduce", description=__doc__)
    parser.add_argument("row", help="row of the board, e.g. mlp_gate or random@ffn")
    parser.add_argument(
        "--suite",
        default="quick",
        help="suite, or its YAML file, whose records to take (default: quick)",
    )
    add_records(parser)
    parser.add_argument(
        "--out",
        type=place,
        default=Path("runs") / REPRODUCED,
        help="folder for the reruns (default: runs/reproduce)",
    )
    add_workers(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run again, compare, print. Return 0 only if the row is confirmed."""
    from bench.executors.pool import local_executor
    from bench.runner.resume_cell import Job
    from bench.runner.schedule import run_cells
    from bench.stats.reproduction import compare

    records = row_records(arguments)
    cells = _cells(records, tuple(arguments.plugin))
    check_device(cells[0].suite.device)
    if records[0].provenance.rules_version != RULES_VERSION:
        print(
            f"note: the record was made under rules version "
            f"{records[0].provenance.rules_version}, this is version {RULES_VERSION}"
        )
    require_folder(arguments.out)
    job = Job(arguments.out, arguments.out, f"python -m bench reproduce {arguments.row}")
    with local_executor(arguments.workers, cells[0].suite.device) as executor:
        results = run_cells(
            cells,
            job,
            executor,
            lambda done: print(f"{done.cell}: {done.status} {done.detail}"),
        )
    # Print the changes since the records were made first, then compare the losses.
    kept = {_numbers(record): record for record in records}
    reruns = _reruns(results, arguments.out)
    for line in _changed(kept, reruns):
        print(f"note: {line}")
    comparison = cells[0].suite.comparison
    recorded, again = (_losses(one.values(), kept) for one in (kept, reruns))
    found = compare(recorded, again, comparison.margin, comparison.alpha)
    table = [
        (*numbers, before, after, after - before)
        for numbers, rerun in sorted(reruns.items())
        if (before := kept[numbers].loss) is not None and (after := rerun.loss) is not None
    ]
    headers = ("seed", "router seed", "recorded", "rerun", "difference")
    print(tabulate(table, headers=headers, floatfmt=("d", "d", ".6f", ".6f", "+.2e")))
    print(f"{arguments.row}: {found.verdict}: {found.detail}")
    return EXIT_CODES[found.verdict]


def row_records(arguments: argparse.Namespace) -> list[Record]:
    """Return the records of the row at one budget and match.

    Raises:
        UserError: there are none, or there are several budgets or matches and none was named.
    """
    folder: Path = arguments.results / name_of_suite(arguments.suite)
    if not folder.is_dir():
        raise UserError(
            f"There are no records in {str(folder)!r}. Add --official, or name another "
            "--results or --suite."
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
    # Losses of different budgets or matches cannot be compared, so one must be chosen.
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


def _numbers(record: Record) -> tuple[int, int]:
    """Return seed and router seed."""
    return record.cell.seed, record.row.router_seed


def _losses(records: Iterable[Record], kept: Iterable[tuple[int, int]]) -> dict[int, float]:
    """Return seed -> mean loss of the seeds that have a loss for each router seed."""
    from bench.board.model import by_seed

    router_seeds = sorted({router_seed for _, router_seed in kept})
    return by_seed(records, lambda record: record.loss, router_seeds)


def _cells(records: Sequence[Record], plugins: tuple[Path, ...]) -> "list[Cell]":
    """Return the cells of a row's records.

    Raises:
        UserError: the records were made on several ranks.
    """
    from bench.runner.weights import recorded_cell

    found: list[Cell] = []
    for record in sorted(records, key=_numbers):
        # The first router seed of a seed has the plain file name.
        replica = sum(cell.seed == record.cell.seed for cell in found)
        found.append(replace(recorded_cell(record, plugins), replica=replica))
    if (ranks := max(cell.suite.ranks for cell in found)) > 1:
        raise UserError(
            f"Row {found[0].row.name!r} was trained on {ranks} ranks, and `reproduce` runs in one "
            "process. Run the suite again by torchrun with another --out, and compare the losses."
        )
    return found


def _reruns(results: "list[CellResult]", root: Path) -> dict[tuple[int, int], Record]:
    """Return (seed, router seed) -> record of the rerun."""
    suite, row = results[0].cell.suite, results[0].cell.row
    there = root / suite.name / row.name / conditions(suite.budget, suite.match)
    made = {_numbers(record): record for _, record in read_records(there)}
    # The folder may hold an earlier rerun, also of a cell that crashed now.
    asked = [
        (result.cell.seed, result.cell.row.router_seed)
        for result in results
        if result.status != "crashed"
    ]
    return {numbers: made[numbers] for numbers in asked if numbers in made}


def _changed(
    recorded: Mapping[tuple[int, int], Record], reruns: Mapping[tuple[int, int], Record]
) -> list[str]:
    """Return a line for each input that has changed since the records were made."""
    notes: list[str] = []
    for numbers, rerun in reruns.items():
        made, now = recorded[numbers].provenance, rerun.provenance
        if made.router_hash != now.router_hash:
            notes.append(
                f"the router {rerun.row.router!r} has changed since commit {made.commit[:12]}"
            )
        # The embedded corpus cannot change; the user's own files can.
        if made.data_hash != now.data_hash:
            notes.append("the text is not the one of the record")
    return list(dict.fromkeys(notes))
