"""Run cells on a Ray cluster, a local or an existing one.

The records lie in a folder that all nodes share. A cell of a dead node is begun again elsewhere,
and continues from its checkpoint there.
"""

import os
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# pyright: reportMissingImports=false
# Ray is an extra, and may be missing where types are checked.
import ray
from ray.exceptions import RayError, RayTaskError

from bench.errors import UserError, told
from bench.executors.executor import Answer, Executor, WorkerDied, worker_environment
from bench.executors.slots import at_most


def open_cluster(
    workers: int | None, on_gpu: bool, settings: Mapping[str, Any], folder: Path
) -> "RayCluster":
    """Connect to the cluster that RAY_ADDRESS or `address` names, else start one here.

    Args:
        workers: largest number of cells at once; None for all cores or all GPUs of the cluster.
        on_gpu: whether each cell takes a GPU.
        settings: arguments of `ray.init`.
        folder: tree of records. Ray keeps nothing in it.

    Raises:
        UserError: there is no such cluster, or it has no GPU.
    """
    # A bench reports nothing to others without being asked.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Without this, Ray hides GPUs from the tasks that take none, with a warning.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    given = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    try:
        ray.init(**{**given, **settings}, runtime_env={"env_vars": worker_environment()})
    except (ConnectionError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"No Ray cluster: {told(error)}. Mend --cluster or RAY_ADDRESS.") from None
    kind = "GPU" if on_gpu else "CPU"
    slots = int(ray.cluster_resources().get(kind, 0))
    if not slots:
        ray.shutdown()
        raise UserError(f"The Ray cluster has no {kind}. Add a node that has, or change --device.")
    return RayCluster(at_most(slots, workers, f"{kind} of the Ray cluster"), on_gpu)


class RayCluster(Executor):
    """Tasks of a Ray cluster, each with one core, and one GPU if cells need it.

    Args:
        workers: number of tasks at once.
        on_gpu: whether each task takes a GPU.
    """

    def __init__(self, workers: int, on_gpu: bool) -> None:
        self.workers, self.on_gpu = workers, on_gpu
        self._here = os.getcwd()  # noqa: PTH109 - the text goes to other nodes
        self._running: set[Any] = set()
        self._lock = threading.Lock()

    def run(self, function: Callable[..., Answer], *arguments: Any, fresh: bool = False) -> Answer:
        """Run a function as one task. This module begins it again, and Ray does not."""
        task = ray.remote(
            num_cpus=1,
            num_gpus=int(self.on_gpu),
            max_retries=0,
            # A process that ran a plugin ends after its call, and so does one with a GPU: it would
            # keep its context on that GPU while Ray gives it another.
            max_calls=1 if fresh or self.on_gpu else 0,
        )(_in_folder)
        reference = task.remote(self._here, function, *arguments)
        with self._lock:
            self._running.add(reference)
        try:
            return ray.get(reference)
        except RayTaskError as error:  # an exception of the function itself
            raise error.cause or error from None
        except RayError as error:  # the process or its node is gone
            raise WorkerDied(type(error).__name__) from None
        finally:
            with self._lock:
                self._running.discard(reference)

    def end(self) -> None:
        """Kill the processes of all tasks."""
        with self._lock:
            running = list(self._running)
        for reference in running:
            ray.cancel(reference, force=True)

    def close(self) -> None:
        """Leave the cluster; a cluster that was started here ends."""
        ray.shutdown()


def _in_folder(folder: str, function: Callable[..., Answer], *arguments: Any) -> Answer:
    """Run a function in the working directory of the command, on any node."""
    os.chdir(folder)
    # Ray turns SIGTERM into an exception, which a cell would record as its own failure.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return function(*arguments)
