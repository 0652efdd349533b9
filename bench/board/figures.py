"""Every figure of a board, and the files they are written to."""

from collections.abc import Callable, Sequence
from pathlib import Path

from bench.board import charts, curves
from bench.board.model import Board
from bench.board.svg import Figure, standalone
from bench.files import write_atomically

_MAKERS: tuple[Callable[[Board], list[Figure]], ...] = (
    charts.forest,
    charts.rank_intervals,
    curves.loss_curves,
    curves.pareto,
    curves.spend_sweep,
    charts.domains,
    curves.sensitivity,
)


def figures(board: Board) -> list[Figure]:
    """The figures that the board's records have data for, in the order of the report."""
    return [figure for make in _MAKERS for figure in make(board)]


def write_figures(boards: Sequence[Board], directory: Path) -> list[Path]:
    """Write each figure of a suite's boards as `directory/<slug>.svg`; boards at several budgets
    get a folder each.

    The bytes depend on the records alone. Figures that the records no longer give are removed.
    """
    made: dict[Path, str] = {}
    for board in boards:
        folder = directory / f"b{100 * board.budget:g}" if board.other_budgets else directory
        made |= {folder / f"{figure.slug}.svg": standalone(figure) for figure in figures(board)}
    for path, text in made.items():
        write_atomically(path, text)
    for path in {*directory.glob("*.svg"), *directory.glob("b*/*.svg")} - made.keys():
        path.unlink()
    return list(made)
