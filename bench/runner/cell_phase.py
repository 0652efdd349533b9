"""Write and read the phase of a running cell, in a small file next to its checkpoints."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from torch import Tensor

from bench.files import write_atomically
from bench.runner.cells import Cell

PULSE = ".progress"
"""Ending of the file."""
REPORT_SECONDS = 1.0
"""Time between two reports within a phase. A loss on a GPU is waited for no more often."""
LEAST_TRAINING = 0.5
"""Share of a training that a process must have done to predict the time of a whole one."""

Phase = Literal["start", "backbone", "training", "evaluation"]
PHASES: tuple[Phase, ...] = get_args(Phase)
"""The phases of a cell, in order. The backbone is trained in the regime `controller` alone."""

Timing = Mapping[Phase, float]
"""Phase -> seconds of a whole cell."""


@dataclass(frozen=True)
class Beat:
    """The state of a running cell at one moment.

    Attributes:
        digest: identification of the cell (`Cell.digest`).
        cell: name of the cell for people.
        phase: the phase that it is in.
        share: finished share of the phase, if its length is known; else 0.
        loss: latest training loss, nats per token; None before the first.
        since: begin of the phase, in seconds since the epoch.
        written: time of this beat, in seconds since the epoch.
    """

    digest: str
    cell: str
    phase: Phase
    share: float
    loss: float | None
    since: float
    written: float


class Pulse:
    """Report the phases of a cell while it runs, and measure how long each takes.

    Args:
        cell: the running cell.
        file: the file for its beats; None writes none.
    """

    def __init__(self, cell: Cell, file: Path | None = None) -> None:
        self.cell, self.file = cell, file
        self.seconds: dict[Phase, float] = dict.fromkeys(PHASES, 0.0)
        self.phase: Phase = "start"
        self.loss: float | None = None
        # A resumed cell begins its training at a later share.
        self.resumed_at: float | None = None
        self._since = time.time()
        self._due = 0.0
        self._write(0.0)

    def enter(self, phase: Phase) -> None:
        """Begin a phase, which ends the one before."""
        now = time.time()
        self.seconds[self.phase] += now - self._since
        self.phase, self._since, self._due = phase, now, 0.0
        self._write(0.0)

    def report(self, share: float, loss: Tensor | float) -> None:
        """Report the finished share of the phase and the training loss, once a second at most."""
        if self.phase == "training" and self.resumed_at is None:
            self.resumed_at = share
        if (now := time.monotonic()) >= self._due:
            self._due = now + REPORT_SECONDS
            self.loss = float(loss)
            self._write(share)

    def timing(self) -> Timing | None:
        """End the last phase, and return the seconds that the whole cell takes.

        The training of a resumed cell is scaled to a whole one. It is None if too little of the
        training was done here.
        """
        self.enter(self.phase)
        done = 1.0 - (self.resumed_at or 0.0)
        if done < LEAST_TRAINING:
            return None
        whole = self.seconds.copy()
        whole["training"] /= done
        return whole

    def _write(self, share: float) -> None:
        if self.file is None:
            return
        name, now = str(self.cell), time.time()
        beat = Beat(self.cell.digest, name, self.phase, share, self.loss, self._since, now)
        # A full disk must not end a cell for the sake of its progress.
        with suppress(OSError):
            write_atomically(self.file, json.dumps(asdict(beat)))


def read_beats(folder: Path) -> Iterator[Beat]:
    """Yield the beats of all cells in a folder, also of cells that were killed."""
    for file in sorted(folder.glob(f"*{PULSE}")):
        # The file is being replaced, was just removed, or is of another version.
        with suppress(OSError, ValueError, TypeError):
            yield Beat(**json.loads(file.read_text(encoding="utf-8")))
