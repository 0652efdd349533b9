"""Check backbone, layers and budget before the first step of a run."""

from collections.abc import Sequence

from bench.config.suite import SuiteConfig
from bench.errors import UserError
from bench.model.assemble import solve_size
from bench.runner.cells import Cell
from bench.runner.resolve import check_layers, decoder_of, resolve


def check_suite(suite: SuiteConfig) -> None:
    """Refuse a suite that cannot run with any row or text.

    Raises:
        UserError: an unknown backbone, or a layer that it lacks.
    """
    check_layers(suite, decoder_of(suite, suite.data.vocab_size))


def check_cells(cells: Sequence[Cell]) -> None:
    """Refuse cells with a row that cannot meet the budget. Each row is sized once.

    A plugin is sized in its own process, before the first step of its cell.

    Raises:
        UserError: a row cannot meet the budget, or its router cannot be priced.
    """
    # Reversed, so that the first cell of each row stays.
    ours = {cell.row.name: cell for cell in reversed(cells) if not cell.outside}
    for name, cell in ours.items():
        try:
            solve_size(resolve(cell).blueprint())
        except UserError as error:
            raise UserError(
                f"Row {name!r} at budget {cell.suite.budget:g}: {error} Nothing was run."
            ) from None
