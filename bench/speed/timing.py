"""Time pieces of work that alternate in one process.

A busy neighbour slows a whole round and not one row, so rounds are compared within themselves.
"""

import statistics
import time
from collections.abc import Callable, Mapping

import torch

WARM_UP = 3
"""Rounds before the timed ones."""


def clock_name(device: torch.device) -> str:
    """Return the name of the clock for a device."""
    return "events of the device" if device.type == "cuda" else "processor time of this process"


def wait_for(device: torch.device) -> None:
    """Wait for the work of a GPU, which runs after the calls have returned."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Return the time of one call: processor time on a CPU, time of the device on a GPU."""
    if device.type == "cuda":
        # The device itself takes the time.
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        wait_for(device)
        return begin.elapsed_time(end) / 1e3
    started = time.process_time()
    work()
    return time.process_time() - started


def alternate(
    works: Mapping[str, Callable[[], object]], rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Call all works in turn, round by round, and return the seconds of each timed round."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for count in range(WARM_UP + rounds):
        # Round by round, so that a slow moment of the machine meets all rows.
        for name, work in works.items():
            took = seconds_of(work, device)
            if count >= WARM_UP:
                seconds[name].append(took)
    return seconds


def relative(seconds: list[float], reference: list[float]) -> float:
    """Return the median over rounds of the time divided by the time of the reference."""
    return statistics.median(a / b for a, b in zip(seconds, reference, strict=True))
