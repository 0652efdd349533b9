"""Cells that measure shorter: the same proof in fewer trials, and the clock read once.

Two thirds of a tiny cell are its proof of causality and its timing. Both have tests of their own.
Imported by processes that run cells, so it holds no test. `python -m tests.short` is the bench with
short cells and figures without drawings.
"""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from bench.cli import main
from bench.conformance import causality_proof
from bench.evaluation import latency
from bench.runner import resume_cell, schedule

TRIALS: dict[str, int] = {"TRIALS": 32, "SHAPES": 8, "SHORT": 2, "LONG": 2}
FULL: dict[str, int] = {name: getattr(causality_proof, name) for name in TRIALS}


@contextmanager
def short_cells() -> Generator[None]:
    """Shorten the cells inside the block, here and in the workers of any executor."""
    with (
        patch.multiple(causality_proof, **TRIALS),
        patch.object(latency, "LEAST_SECONDS", 0.0),
        patch.object(schedule, "resume_cell", resume_shortly),
    ):
        yield


@contextmanager
def undrawn() -> Generator[None]:
    """Leave all drawings empty. Data, words and files of a figure stay; drawing takes most time."""
    with patch("bench.board.drawing._svg", lambda draw, data: '<svg viewBox="0 0 1 1"/>'):
        yield


def resume_shortly(*arguments: Any) -> resume_cell.CellResult:
    """Run a short cell, in any process."""
    with short_cells():
        return resume_cell.resume_cell(*arguments)


if __name__ == "__main__":
    with short_cells(), undrawn():
        sys.exit(main())
