"""Write a board's remarks on its A/A controls and on its router seeds."""

from collections.abc import Callable, Sequence

from bench.board.measures import router_seed_sd
from bench.board.model import Board
from bench.board.text import BITS, listing, number
from bench.stats import NoiseFloor


def aa_control(floors: Sequence[NoiseFloor], shown: Callable[[str], str]) -> list[str]:
    """Return a line per twin on whether it differs from its row, and one on the whole control.

    Args:
        floors: the comparison of each twin with its row.
        shown: escapes foreign text.
    """
    lines: list[str] = []
    for floor in floors:
        limits = f"{number(BITS * floor.difference, 4, signed=True)} "
        limits += f"± {number(BITS * floor.floor, 4)} bits per byte"
        lines.append(
            f"A/A control: {shown(floor.row)} minus {shown(floor.twin)} is {limits}; "
            f"{_told(floor)}."
        )
    return [*lines, *_in_all(floors)]


def _told(floor: NoiseFloor) -> str:
    if floor.passed is None:
        return "too few seeds to say"
    if not floor.passed:
        return "told apart"
    # The 95 % interval may exclude 0 while the stricter level of several twins or looks does not.
    corrected = abs(floor.difference) > floor.floor
    return "not told apart" + " at the corrected level of this look" * corrected


def _in_all(floors: Sequence[NoiseFloor]) -> list[str]:
    # One twin that fails is enough: true differences between twins are 0.
    tested = [floor for floor in floors if floor.passed is not None]
    apart = [floor for floor in tested if not floor.passed]
    many = f"of {len(tested)} twin{'s' * (len(tested) > 1)}"
    if not apart:
        return [f"None {many} is told apart from its row."] * (len(tested) > 1)
    largest = number(BITS * max(abs(floor.difference) for floor in apart), 4)
    return [
        f"The A/A control fails: {len(apart)} {many} {'is' if len(apart) == 1 else 'are'} told "
        "apart, though a twin repeats its row and the true difference is 0. Either the harness "
        "treats the two differently, or the design cannot tell a row from itself, with too few "
        "router seeds or seeds for the spread of first weights. Differences between learned rows "
        f"up to {largest} bits per byte are not to be believed."
    ]


def router_seeds(board: Board, shown: Callable[[str], str]) -> list[str]:
    """Return a line on the rows that are means over several router seeds, with their spread."""
    said = [
        f"{shown(row.name)} ({len(row.router_seeds)}, SD {number(BITS * sd, 4)})"
        for row in board.rows
        if (sd := router_seed_sd(row)) is not None
    ]
    if not said:
        return []
    return [
        "A seed is the mean over several router seeds (their number, and the SD between them "
        f"within a seed, bits per byte) of {listing(said, 12)}. Their spread is part of the "
        "intervals."
    ]
