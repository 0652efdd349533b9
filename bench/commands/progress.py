"""Show the progress of a run: the running cells on a terminal, and elsewhere plain lines."""

import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.text import Text

from bench.files import live_display, stderr_lines

if TYPE_CHECKING:
    from bench.runner.cell_phase import Beat, Phase
    from bench.runner.cells import Cell
    from bench.runner.resume_cell import CellResult

COLOURS = {"ok": "green", "kept": "dim", "off_budget": "yellow"}
NARROW = 72
"""Columns below which names of phases are short."""
SHORT: dict["Phase", str] = {
    "start": "start",
    "backbone": "base",
    "training": "train",
    "evaluation": "eval",
}
LEAST_NAME = 8
"""Smallest number of characters of a cell's name."""


class Progress:
    """Show the cells of a run, and the time left.

    On a terminal the running cells are below the lines of the finished ones. Elsewhere there is a
    line at the start and at the end of each cell.

    Args:
        console: the console.
        cells: the cells of the run, in order.
        store: tree whose store holds the records.
        folder: folder with the beats of running cells.
        workers: number of cells that run at once.
    """

    def __init__(
        self, console: Console, cells: Sequence["Cell"], store: Path, folder: Path, workers: int
    ) -> None:
        from bench.planning.forecast import Forecast, expect

        expected, kept = expect(cells, store)
        self.console, self.total, self.folder = console, len(cells), folder
        self.forecast = Forecast(expected, workers)
        self.expected_kept, self.begun_at = kept, time.time()
        self.done = self.kept = self.failed = 0
        self._said: set[str] = set()
        self._live = live_display(console)
        self._open = ExitStack()
        # Workers start cells in several threads, while the main one finishes others.
        self._lock = threading.RLock()

    def __enter__(self) -> "Progress":
        """Start the live display, on a terminal."""
        if self._live:
            from bench.executors.isolation import start_tracker

            # The tracker of resources outlives the display, so it keeps the real stderr.
            start_tracker()
            self._open.enter_context(
                Live(
                    console=self.console,
                    get_renderable=self.running,
                    refresh_per_second=1,
                    transient=True,
                )
            )
            self._open.enter_context(stderr_lines(self._show_foreign))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the live display."""
        self._open.close()

    def starting(self, cell: "Cell") -> None:
        """Print a plain line for a cell that a worker takes up, unless its record is known."""
        if self._live or cell.digest in self.expected_kept:
            return
        with self._lock:
            # A cell in another run's hands is taken up twice.
            if cell.digest in self._said:
                return
            self._said.add(cell.digest)
            line = f"{'':9}  {cell!s:28} started     ({self.time_left()})"
            self.console.print(Text(line), soft_wrap=True)

    def __call__(self, result: "CellResult") -> None:
        """Print the line of a finished cell."""
        with self._lock:
            kept = result.status == "kept"
            self.done += not kept
            self.kept += kept
            self.failed += result.bad
            self.forecast.finish(result.cell.digest, result.timing)
            line = Text(f"{self.done + self.kept:4}/{self.total:<4}  {result.cell!s:28} ")
            line.append(f"{result.status:10}", style=COLOURS.get(result.status, "red"))
            line.append(f" {result.seconds:6.0f} s  {result.detail}")
            # On a terminal the live display shows the time left. A kept cell changes nothing.
            if not (self._live or kept) and self.left:
                line.append(f"  ({self.time_left()})")
            self.console.print(line, soft_wrap=True)

    @property
    def left(self) -> int:
        """Return the number of cells without a result."""
        return self.total - self.done - self.kept

    def beats(self) -> dict[str, "Beat"]:
        """Return digest -> latest beat of the running cells."""
        from bench.runner.cell_phase import read_beats

        # A run that was killed left beats behind, and other runs have other cells.
        new = {
            beat.digest: beat for beat in read_beats(self.folder) if beat.written >= self.begun_at
        }
        return {digest: new[digest] for digest in self.forecast.waiting if digest in new}

    def time_left(self) -> str:
        """Return the predicted time to the end of the run, in words."""
        seconds = self.forecast.seconds_left(self.beats(), time.time())
        if seconds is None:
            return "time left: after the first cell"
        return f"time left: about {in_words(seconds)}"

    def running(self) -> Text:
        """Return the live display: a line of counts and one for each running cell."""
        with self._lock:
            failed = f" ({self.failed} failed)" if self.failed else ""
            counts = f"{self.total} cells: {self.done} done{failed}, {self.kept} kept, "
            text = Text(f"{counts}{self.left} left", style="bold")
            if self.left:
                text.append(f"\n{self.time_left()}")
            for beat in self.beats().values():
                text.append(f"\n{beat_line(beat, self.console.width)}", style="dim")
        return text

    def _show_foreign(self, line: str) -> None:
        """Print a line that a plugin wrote, above the display."""
        self.console.print(Text.from_ansi(line), soft_wrap=True)


def beat_line(beat: "Beat", width: int) -> str:
    """Return the line of a running cell, in at most `width` columns if there are 27."""
    narrow = width < NARROW
    phase = f"{SHORT[beat.phase]:5}" if narrow else f"{beat.phase:10}"
    share = f"{beat.share:4.0%}" if beat.phase in ("backbone", "training") else " " * 4
    loss = "" if beat.loss is None else f"{beat.loss:6.3f}" if narrow else f"loss {beat.loss:.4f}"
    rest = f" {phase} {share} {loss}".rstrip()
    # The place of the loss is kept free, so that names stay in their column.
    room = max(LEAST_NAME, width - 1 - len(f" {phase} {share} ") - (6 if narrow else 11))
    return f" {shortened_name(beat.cell, min(28, room))}{rest}"


def shortened_name(name: str, size: int) -> str:
    """Cut a name in its middle, since its end tells the seed. Pad a shorter one."""
    if len(name) <= size:
        return name.ljust(size)
    head = (size - 2) // 2
    return f"{name[:head]}..{name[len(name) - (size - 2 - head) :]}"


def in_words(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
