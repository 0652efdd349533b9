"""Show the progress of a run: a line per finished cell, and on a terminal the running cells."""

import json
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.text import Text

if TYPE_CHECKING:
    from bench.runner.work import CellResult

COLOURS = {"ok": "green", "kept": "dim", "off_budget": "yellow"}


class Progress:
    """Report results as they come.

    Args:
        console: the console; it gets plain lines if it is no terminal.
        total: number of cells.
        beats: folder with the progress files of running cells.
    """

    def __init__(self, console: Console, total: int, beats: Path) -> None:
        self.console, self.total, self.beats = console, total, beats
        self.done, self.run, self.started = 0, 0, time.monotonic()
        self._live = Live(
            console=console, get_renderable=self._running, refresh_per_second=1, transient=True
        )

    def __enter__(self) -> "Progress":
        """Start the live display, on a terminal."""
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the live display."""
        self._live.stop()

    def __call__(self, result: "CellResult") -> None:
        """Print the line of a finished cell."""
        self.done += 1
        # Kept cells take no time, so they must not count for the estimate.
        self.run += result.status != "kept"
        line = Text(f"{self.done:4}/{self.total}  {result.cell!s:28} ")
        line.append(f"{result.status:10}", style=COLOURS.get(result.status, "red"))
        line.append(f" {result.seconds:6.0f} s  {result.detail}")
        # On a terminal the live display shows the time left.
        if not self.console.is_terminal and (left := self.time_left()):
            line.append(f"  ({left} left)")
        self.console.print(line, soft_wrap=True)

    def time_left(self) -> str:
        """Estimate the remaining time from the cells that were run; empty before the first."""
        if not self.run or self.done == self.total:
            return ""
        seconds = (time.monotonic() - self.started) / self.run * (self.total - self.done)
        return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"

    def _running(self) -> Text:
        left = self.time_left()
        text = Text(
            f"{self.done}/{self.total} cells" + (f", {left} left" if left else ""), style="bold"
        )
        # Each running cell writes its share and loss into a file of its own.
        for file in sorted(self.beats.glob("*.progress")):
            try:
                beat = json.loads(file.read_text(encoding="utf-8"))
            except (OSError, ValueError):  # the file is being replaced, or was just removed
                continue
            text.append(
                f"\n  {beat['cell']:28} {beat['share']:4.0%}  {beat['loss']:.4f} nats a byte",
                style="dim",
            )
        return text
