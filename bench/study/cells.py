"""Plan the cells of a study, before they are run."""

from bench.data import load_corpus
from bench.runner.cells import Cell, plan_cells
from bench.runner.plugins import plugin_files
from bench.runner.rows import parse_rows, unmet_needs
from bench.study.config import Size, StudyConfig
from bench.study.load import suites_of


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
        reasons = {
            name: unmet_needs(card, len(corpus.domains), corpus.route, suite.regime)
            for name, card in parsed.cards.items()
        }
        skipped += [f"{row} in {setting}: {reason}" for row, reason in reasons.items() if reason]
        # Rows that need data this corpus lacks, such as right paths, are skipped with a reason.
        rows = [row for row in parsed.rows if not reasons[row.name]]
        cells[setting] = plan_cells(suite, rows, size.numbers, plugins, parsed.outside)
    return cells, skipped
