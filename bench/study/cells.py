"""The running half of a study: its cells."""

from bench.data import load_corpus
from bench.runner.cells import Cell, plan_cells
from bench.runner.plugins import plugin_files
from bench.runner.rows import parse_rows, unmet
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
        plugins = plugin_files(suite)
        parsed = parse_rows(suite, "all", plugins)
        reasons = unmet(suite, load_corpus(suite.data.at(0)), parsed)
        skipped += [f"{row} in {setting}: {reason}" for row, reason in reasons.items()]
        rows = parsed.without(reasons).rows
        cells[setting] = plan_cells(suite, rows, size.numbers, plugins, parsed.outside)
    return cells, skipped
