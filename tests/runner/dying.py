"""Cells whose process dies in mid-run, or waits for its death.

Imported by the workers of any executor, so it holds no test.
"""

import os
import signal
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bench.runner.cells import Cell
from bench.runner.resume_cell import CellResult, Job
from bench.training.checkpoint import Checkpoints
from tests.short import resume_shortly

SAVED = 2
"""Checkpoints that a process writes before it dies."""


def die_once(cell: Cell, job: Job, wait: bool) -> CellResult:
    """Run a cell, and kill the process in the middle of the first attempt."""
    return _attempt(cell, job, wait, lambda: os.kill(os.getpid(), signal.SIGKILL))


def linger_once(cell: Cell, job: Job, wait: bool) -> CellResult:
    """Run a cell, and stay in the middle of the first attempt until someone kills the process."""
    return _attempt(cell, job, wait, lambda: time.sleep(600))


def place_of(cell: Cell, root: Path, name: str) -> Path:
    """The file by which attempts at a cell tell of themselves: `began` or `resumed`."""
    return root / f"{cell.digest}.{name}"


def _attempt(cell: Cell, job: Job, wait: bool, die: Any) -> CellResult:
    began, restore = place_of(cell, job.root, "began"), Checkpoints.restore
    save, saved = Checkpoints.save_if_due, 0

    def save_and_die(self: Checkpoints, *arguments: Any) -> None:
        nonlocal saved
        save(self, *arguments)
        saved += 1
        if saved == SAVED:
            began.write_text(_node(), encoding="utf-8")
            die()

    def restore_and_tell(self: Checkpoints, *arguments: Any) -> bool:
        found = restore(self, *arguments)
        place_of(cell, job.root, "resumed").write_text(f"{found} {_node()}", encoding="utf-8")
        return found

    if began.exists():
        with patch.object(Checkpoints, "restore", restore_and_tell):
            return resume_shortly(cell, job, wait)
    began.parent.mkdir(parents=True, exist_ok=True)
    with patch.object(Checkpoints, "save_if_due", save_and_die):
        return resume_shortly(cell, job, wait)


def _node() -> str:
    """Return the Ray node of this process, if it has one."""
    import sys

    ray = sys.modules.get("ray")
    inside = ray is not None and ray.is_initialized()
    return ray.get_runtime_context().get_node_id() if inside else ""
