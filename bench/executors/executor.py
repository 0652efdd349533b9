"""Define executors: the places where cells are run, behind one interface."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar, get_args

from bench.errors import UserError
from bench.files import default_cache

ExecutorName = Literal["local", "ray", "slurm"]
EXECUTORS: tuple[ExecutorName, ...] = get_args(ExecutorName)
MODULES = {"ray": "ray", "slurm": "submitit"}
"""Executor -> the package that it needs. The extra has the executor's name."""
ROOT = Path(__file__).resolve().parents[2]

Answer = TypeVar("Answer")


class WorkerDied(Exception):
    """The process or the node that ran a function is gone. The text has the reason."""


class Executor(ABC):
    """A number of workers that run functions, each in one process with one thread.

    An executor is a context manager. Leaving it ends its workers.

    Attributes:
        workers: number of functions that run at once; 0 runs them in this process.
    """

    workers: int

    @abstractmethod
    def run(self, function: Callable[..., Answer], *arguments: Any, fresh: bool = False) -> Answer:
        """Run a function on a free worker and return its answer. Called from several threads.

        Args:
            function: a function that workers can import.
            arguments: its arguments.
            fresh: run it in a process that runs nothing else, before or after.

        Raises:
            WorkerDied: the worker died, or was ended.
        """

    @abstractmethod
    def end(self) -> None:
        """Kill all workers at once, also while functions run. Their cells resume later."""

    @abstractmethod
    def close(self) -> None:
        """End the workers, which are idle, or dead after `end`."""

    def __enter__(self) -> "Executor":
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()


def open_executor(
    name: ExecutorName,
    workers: int | None,
    device: str,
    settings: Mapping[str, Any] | None = None,
    folder: Path = Path(),
) -> Executor:
    """Return an executor for cells of a device.

    Args:
        name: kind of the executor.
        workers: largest number of cells at once; 0 runs them in this process; None uses all
            cores, or all GPUs with one cell on each.
        device: device of the cells.
        settings: fields for the cluster's own library.
        folder: tree of records, which all workers can reach.

    Raises:
        UserError: the executor needs a package that is missing, or the options do not fit it.
    """
    settings = settings or {}
    if name == "local":
        from bench.executors.pool import local_executor

        if settings:
            raise UserError("--cluster is for the executors ray and slurm; drop it.")
        return local_executor(workers, device)
    if find_spec(MODULES[name]) is None:
        raise UserError(
            f"--executor {name} needs the package {MODULES[name]}, which is not installed: "
            f"pip install -c constraints.txt -e '.[{name}]'."
        )
    if workers == 0:
        raise UserError(f"--workers 0 runs in this process; --executor {name} needs 1 or more.")
    if ":" in device:
        raise UserError(
            f"device is {device!r}; --executor {name} gives each cell a GPU of its own. "
            "Set it to cuda."
        )
    # The libraries are optional, so their modules are imported on demand.
    module = import_module(f"bench.executors.{name}_executor")
    return module.open_cluster(workers, device != "cpu", settings, folder)


def worker_environment() -> dict[str, str]:
    """Return the variables of a worker on any node: one thread, our sources, a common cache."""
    paths: Sequence[str] = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        # Threads must be fixed before a worker imports torch, so by environment.
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(paths),
        # Texts and frozen backbones are made once, and not on every node.
        "TOKEN_ROUTING_BENCH_CACHE": str(default_cache().absolute()),
    }
