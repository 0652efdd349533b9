"""Measure the peak memory of training steps, each row in a process of its own.

The tensors are counted by torch's profiler, allocation by allocation, so no other work on the
machine moves their figure. The memory of the whole process is given too: for a small model most
of it is code.
"""

from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from bench.data import load_corpus
from bench.executors.isolation import FreshProcess
from bench.record.speed import Memory
from bench.runner.cells import Cell
from bench.runner.memory import PeakMemory
from bench.runner.numerics import fix_numerics
from bench.runner.resolve import ResolvedCell, resolve
from bench.speed.subject import Subject

STEPS = 3
"""Steps of a measurement; the first one makes the state of the optimisers."""
STEPPING = "training steps"
QUIET = {"TORCH_CPP_LOG_LEVEL": "ERROR", "KINETO_LOG_LEVEL": "99"}
"""Variables that keep the profiler from printing."""


def measure_memory(
    cells: Sequence[Cell], told: Callable[[str], None] = lambda text: None
) -> dict[str, Memory]:
    """Return row name -> peak memory of its training steps.

    A row whose process died, for example for its memory, is left out.

    Args:
        cells: one cell for each row.
        told: called with what is being done.
    """
    found: dict[str, Memory] = {}
    for cell in cells:
        told(f"memory of {cell.row.name}")
        process = FreshProcess(quiet=True, environment=QUIET)
        try:
            found[cell.row.name] = process.run(memory_of, cell)
        except BrokenProcessPool:
            told(f"memory of {cell.row.name}: unknown, because its process died")
        finally:
            process.close()
    return found


def memory_of(cell: Cell) -> Memory:
    """Build the model of a cell, do some training steps, and return their peak memory."""
    fix_numerics(cell.suite.device)
    device = torch.device(cell.suite.device)
    # As in a cell, the peak is of the whole process, with the text.
    peak = PeakMemory(torch.device("cpu"))
    resolved = resolve(cell, load_corpus(cell.suite.data.at(cell.seed)))
    _train(resolved)
    process = peak.megabytes()
    if device.type == "cuda":
        on_device = PeakMemory(device)
        _train(resolved)
        tensors = on_device.megabytes() or 0.0
    else:
        tensors = _tensors(resolved) / 2**20
    return Memory(tensors_mb=tensors, process_mb=process)


def _train(resolved: ResolvedCell) -> None:
    subject = Subject(resolved)
    with record_function(STEPPING):
        for _ in range(STEPS):
            subject.step()


def _tensors(resolved: ResolvedCell) -> int:
    """Return the most bytes that tensors of model, optimiser and steps had at one time."""
    # From before the model is built, so that its weights are counted too.
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        _train(resolved)
    recorded: Any = run.profiler
    events = sorted(recorded.kineto_results.events(), key=lambda event: event.start_ns())
    begin = next(event.start_ns() for event in events if event.name() == STEPPING)
    live = most = 0
    for event in events:
        if event.name() == "[memory]":
            live += event.nbytes()
            # Pricing a router runs it before any step does.
            if event.start_ns() >= begin:
                most = max(most, live)
    return most
