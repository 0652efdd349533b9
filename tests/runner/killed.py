"""Cells that run in a process of their own, to be killed.

Imported by the processes, so it holds no test.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

# `torch.use_deterministic_algorithms` imports this, which takes seconds.
import torch._inductor.config  # noqa: F401

import bench.evaluation.headline
import bench.runner.fill_record
import bench.runner.resume_cell
import bench.runner.run_cell
from bench.runner.cells import Cell
from bench.runner.resume_cell import Job, resume_cell
from bench.training.checkpoint import Checkpoints
from tests import world
from tests.short import short_cells

PHASES: dict[str, tuple[Any, str]] = {
    "training": (bench.runner.run_cell, "train"),
    "checkpoint": (Checkpoints, "save_if_due"),
    "calibration": (bench.evaluation.headline, "calibrate"),
    "evaluation": (bench.evaluation.headline, "evaluate"),
    "proof": (bench.runner.run_cell, "prove"),
    "record": (bench.runner.resume_cell, "write_record"),
}
"""Each phase, in order, and the function that it is."""


@dataclass(frozen=True)
class Kill:
    """End the process `delay` seconds after it enters a phase for the `call`-th time."""

    phase: str
    call: int
    delay: float


def run(cell: Cell, root: Path, cache: Path, kill: Kill | None = None) -> None:
    """Run a cell with a checkpoint at every step.

    The digest of its final state is written next to the record, before the record, and the phases
    as they are entered and left in `phases_of(root)`.
    """
    os.environ["TOKEN_ROUTING_BENCH_CACHE"] = str(cache)
    with ExitStack() as stack:
        stack.enter_context(short_cells())
        stack.enter_context(
            patch.object(
                bench.runner.run_cell, "train", _leaving_digest(bench.runner.run_cell.train, root)
            )
        )
        log = os.open(_log(root), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for phase, (where, name) in PHASES.items():
            stack.enter_context(
                patch.object(where, name, _watched(phase, getattr(where, name), log, kill))
            )
        outcome = resume_cell(cell, Job(root, root, "killed", checkpoint_seconds=0))
    assert outcome.status in ("ok", "off_budget", "kept"), outcome.detail


def phases_of(root: Path) -> tuple[dict[str, list[float]], list[str]]:
    """Return the traces of the last process on a folder.

    Returns:
        Seconds of each phase it left, call by call; and the phases that it had entered and not
        left.
    """
    seconds: dict[str, list[float]] = {}
    entered: dict[str, float] = {}
    for line in _log(root).read_text(encoding="utf-8").splitlines():
        phase, what, at = line.split()
        if what == "enter":
            entered[phase] = float(at)
        else:
            seconds.setdefault(phase, []).append(float(at) - entered.pop(phase))
    return seconds, list(entered)


def forget_phases(root: Path) -> None:
    """Begin the log anew."""
    _log(root).unlink(missing_ok=True)


def _log(root: Path) -> Path:
    return root.with_suffix(".log")


def _watched(
    phase: str, function: Callable[..., Any], log: int, kill: Kill | None
) -> Callable[..., Any]:
    calls = 0

    def call(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        os.write(log, f"{phase} enter {time.monotonic()}\n".encode())
        if kill is not None and (kill.phase, kill.call) == (phase, calls):
            if not kill.delay:
                _end(0.0)
            threading.Thread(target=_end, args=(kill.delay,), daemon=True).start()
        result = function(*arguments, **options)
        os.write(log, f"{phase} leave {time.monotonic()}\n".encode())
        return result

    return call


def _end(delay: float) -> None:
    time.sleep(delay)
    os.kill(os.getpid(), signal.SIGKILL)


def _leaving_digest(train: Callable[..., Any], root: Path) -> Callable[..., Any]:
    def watched(model: Any, *arguments: Any, **options: Any) -> Any:
        trained = train(model, *arguments, **options)
        state = {name: part.state_dict() for name, part in options["checkpoints"].parts.items()}
        final = world.digest([model.decoder.state_dict(), state, replace(trained, seconds=0.0)])
        (root / "digest.txt").write_text(final, encoding="utf-8")
        return trained

    return watched
