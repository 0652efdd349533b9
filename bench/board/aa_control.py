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
        limits = f"{number(BITS * floor.difference, 4, signed=True)} bits per byte "
        limits += f"(95 % interval ± {number(BITS * floor.floor, 4)})"
        lines.append(
            f"A/A control: {shown(floor.row)} minus its copy {shown(floor.twin)} is {limits}; "
            f"{_told(floor)}."
        )
    return [*lines, *_in_all(floors)]


def _told(floor: NoiseFloor) -> str:
    if floor.passed is None:
        return "too few seeds to say"
    if not floor.passed:
        return "a significant difference"
    # The 95 % interval may exclude 0 while the stricter level of several twins or looks does not.
    corrected = abs(floor.difference) > floor.floor
    return "not significant" + " at the corrected level of this look" * corrected


def _in_all(floors: Sequence[NoiseFloor]) -> list[str]:
    # One twin that fails is enough: true differences between twins are 0.
    tested = [floor for floor in floors if floor.passed is not None]
    apart = [floor for floor in tested if not floor.passed]
    many = f"of {len(tested)} twin{'s' * (len(tested) > 1)}"
    if not apart:
        return [f"None {many} differs significantly from its row."] * (len(tested) > 1)
    largest = number(BITS * max(abs(floor.difference) for floor in apart), 4)
    return [
        f"The A/A control fails: {len(apart)} {many} {'differs' if len(apart) == 1 else 'differ'} "
        "significantly from its row, though a twin repeats the row and the true difference is 0. "
        "Either the harness treats the two differently, or there are too few seeds or router seeds "
        "for the spread of first weights. Do not believe differences between learned rows up to "
        f"{largest} bits per byte."
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
        f"Means over several router seeds in each seed: {listing(said, 12)}. In brackets are their "
        "number and the SD between them within a seed, in bits per byte. Their spread is part of "
        "the intervals."
    ]
