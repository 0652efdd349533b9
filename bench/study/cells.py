"""Plan the cells of a study, before they are run."""

from bench.data import load_corpus
from bench.runner.cells import Cell, plan_cells
from bench.runner.plugins import plugin_files
from bench.runner.rows import parse_rows, unmet
from bench.study.config import Size, StudyConfig
from bench.study.read_study import suites_of


def study_cells(study: StudyConfig, size: Size) -> tuple[dict[str, list[Cell]], list[str]]:
    """Return setting -> its cells, and a line for each row that a setting cannot run.

    Raises:
        UserError: a setting's suite is invalid, or a row names an unknown router or option.
    """
    cells: dict[str, list[Cell]] = {}
    skipped: list[str] = []
    for setting, suite in suites_of(study, size).items():
        # The domains and the route are the same at every seed, so the first seed's data will do.
        corpus = load_corpus(suite.data.at(0))
        plugins = plugin_files(suite)
        parsed = parse_rows(suite, "all", plugins)
        # Rows that need data this corpus lacks, such as right paths, are skipped with a reason.
        reasons = unmet(suite, corpus, parsed)
        skipped += [f"{row} in {setting}: {reason}" for row, reason in reasons.items()]
        rows = parsed.without(reasons).rows
        cells[setting] = plan_cells(suite, rows, size.numbers, plugins, parsed.outside)
    return cells, skipped
