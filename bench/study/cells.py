"""The running half of a study.

Its cells, and records of the very same cells that lie elsewhere already.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from bench.board.build import STUDIES
from bench.data import load_corpus
from bench.errors import UserError
from bench.record import Record
from bench.runner.cells import Cell, parse_rows, plan_cells, unmet_needs
from bench.runner.execute import cell_key
from bench.study.config import Size, StudyConfig
from bench.study.load import suites_of


def study_cells(study: StudyConfig, size: Size) -> tuple[dict[str, list[Cell]], list[str]]:
    """Setting -> its cells, and a line for each row that a setting cannot run.

    Raises:
        UserError: a setting's suite is bad, or a row names a router or options that there are not.
    """
    cells: dict[str, list[Cell]] = {}
    skipped: list[str] = []
    for setting, suite in suites_of(study, size).items():
        corpus = load_corpus(suite.data.at(0))
        domains = len(corpus.domains)
        reasons = {
            row.name: unmet_needs(row, domains, corpus.route, suite.regime)
            for row in parse_rows(suite, "all")
        }
        skipped += [f"{row} in {setting}: {reason}" for row, reason in reasons.items() if reason]
        rows = [row for row in suite.rows if not reasons[row.name]]
        cells[setting] = plan_cells(suite, rows, size.numbers)
    return cells, skipped


def adopt(cells: Sequence[Cell], root: Path, trees: Sequence[Path]) -> int:
    """Copy records of the very same cells from other trees to `root`, and return how many.

    A cell that several studies share, or that a study shares with its suite's board, is then run
    once.

    Args:
        cells: what is wanted.
        root: the tree of records to complete.
        trees: trees to look in.
    """
    count = 0
    for cell in cells:
        path = cell.path(root)
        if path.exists():
            continue
        relative = path.relative_to(root)
        there = next(
            (tree / relative for tree in trees if tree != root and _is_same(tree / relative, cell)),
            None,
        )
        if there is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(there, path)
            count += 1
    return count


def trees_of(out: Path) -> list[Path]:
    """The tree of records itself, and the folder of every setting of every study in it."""
    return [out, *sorted(path for path in (out / STUDIES).glob("*/*/*") if path.is_dir())]


def _is_same(path: Path, cell: Cell) -> bool:
    """Whether a file is a usable record of this very cell, by content key, and says so with the
    same row.
    """
    if not path.is_file():
        return False
    try:
        record = Record.read(path)
    except UserError:
        return False
    listed = next(
        (
            row
            for row in record.provenance.config.get("rows", [])
            if row.get("name") == cell.row.name
        ),
        None,
    )
    if record.status == "failed" or listed != cell.suite.row(cell.row.name).canonical():
        return False
    apart = {"control": None}  # which row it is set beside is no part of the experiment
    same = record.cell.model_copy(update=apart) == cell.identity().model_copy(update=apart)
    return same and record.key == cell_key(cell, load_corpus(cell.data))
