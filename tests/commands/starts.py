"""An executor that runs nothing, and keeps the cells in the order in which they start."""

from typing import Any

import pytest

from bench.executors.executor import Executor
from bench.runner.resume_cell import CellResult, Job


class Starts(Executor):
    """The cells that a command hands to its executor.

    Attributes:
        chosen: the arguments by which the command opened the executor.
        names: names of the cells, in order.
        jobs: the job of each.
        status: the status that every cell ends with.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.chosen: tuple[Any, ...] = ()
        self.names: list[str] = []
        self.jobs: list[Job] = []
        self.status = "crashed"

    def run(self, function: Any, *arguments: Any, fresh: bool = False) -> Any:
        cell, job, *_ = arguments
        self.names.append(str(cell))
        self.jobs.append(job)
        return CellResult(cell, self.status, "not run", 0.0)

    def end(self) -> None: ...

    def close(self) -> None: ...


def opened(monkeypatch: pytest.MonkeyPatch, workers: int = 1) -> Starts:
    """Return the executor that commands of this test open. More than one worker shuffles names."""
    starts = Starts(workers)

    def open_executor(*chosen: Any) -> Starts:
        starts.chosen = chosen
        return starts

    monkeypatch.setattr("bench.executors.executor.open_executor", open_executor)
    return starts
