"""Run cells on this machine: in this process, or in single-threaded processes side by side."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from queue import SimpleQueue
from typing import Any

from bench.executors.executor import Answer, Executor, WorkerDied
from bench.executors.isolation import FreshProcess, end_processes
from bench.executors.slots import at_most, cores, gpus

DIED = "out of memory, or killed"
VISIBLE = "CUDA_VISIBLE_DEVICES"


def local_executor(workers: int | None, device: str = "cpu") -> Executor:
    """Return the executor of this machine.

    Args:
        workers: largest number of processes; 0 for this one; None for all cores or all GPUs. More
            than these are not started.
        device: device of the cells. With `cuda` each process has a GPU of its own, and with
            `cuda:1` one process has this GPU.
    """
    if workers == 0:
        return InProcess()
    if device == "cpu":
        return Pool(at_most(cores(), workers, "core of this machine"))
    own = gpus() if device == "cuda" else [None]
    return Pool(at_most(len(own), workers, f"GPU of --device {device}"), own)


class InProcess(Executor):
    """Run functions in this process, one after another; those with a plugin in their own."""

    workers = 0

    def run(self, function: Callable[..., Answer], *arguments: Any, fresh: bool = False) -> Answer:
        """Run a function here, or in a fresh process."""
        if not fresh:
            return function(*arguments)
        with Pool(1) as pool:
            return pool.run(function, *arguments)

    def end(self) -> None:
        """Kill the fresh process."""
        end_processes()

    def close(self) -> None:
        """Do nothing."""


class Pool(Executor):
    """Processes of this machine. Each starts with its first function, and again after it died.

    Args:
        workers: number of processes.
        own_gpus: GPUs to give to the processes, one each; None gives no process a GPU.
    """

    def __init__(self, workers: int, own_gpus: Sequence[str | None] = ()) -> None:
        self.workers = workers
        # Threads must be fixed before a worker imports torch, so by environment.
        os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
        self._idle: SimpleQueue[FreshProcess] = SimpleQueue()
        for number in range(workers):
            gpu = own_gpus[number] if own_gpus else None
            environment = {} if gpu is None else {VISIBLE: gpu}
            self._idle.put(FreshProcess(quiet=True, environment=environment))

    def run(self, function: Callable[..., Answer], *arguments: Any, fresh: bool = False) -> Answer:
        """Run a function in the process that has been idle for longest."""
        worker = self._idle.get()
        try:
            return worker.run(function, *arguments)
        except BrokenProcessPool:
            raise WorkerDied(DIED) from None
        finally:
            # A plugin may have changed the state of its process.
            if fresh:
                worker.close()
            self._idle.put(worker)

    def end(self) -> None:
        """Kill all processes; their cells resume from checkpoints."""
        end_processes()

    def close(self) -> None:
        """End the idle processes. Those of a run that was broken off are dead already."""
        while not self._idle.empty():
            self._idle.get().close()
