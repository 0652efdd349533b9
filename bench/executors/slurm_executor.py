"""Run cells as Slurm jobs, by submitit. A preempted job is queued again, and its cell continues.

The records lie in a folder that all nodes share.
"""

import os
import shutil
import signal
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

# pyright: reportMissingImports=false
# submitit is an extra, and may be missing where types are checked.
import submitit

from bench.errors import UserError, told
from bench.executors.executor import Answer, Executor, WorkerDied, worker_environment
from bench.executors.isolation import FreshProcess, end_processes
from bench.executors.slots import at_most, cores

LOGS = ".slurm"
"""Folder of the tree of records for the scripts and logs of jobs, removed when a job is done."""
MOST_JOBS = 256
"""Largest number of jobs in the queue, unless `--workers` says otherwise."""
POLL_SECONDS = 1.0
MINUTES = 24 * 60
"""Time limit of a job, unless `timeout_min` says otherwise."""


def open_cluster(
    workers: int | None, on_gpu: bool, settings: Mapping[str, Any], folder: Path
) -> "SlurmJobs":
    """Return an executor that submits a job for each cell.

    Args:
        workers: largest number of jobs in the queue; None for 256, or for all cores if submitit
            runs the jobs on this machine.
        on_gpu: whether each job takes a GPU.
        settings: parameters of submitit; `cluster: local` runs jobs as processes of this machine.
        folder: tree of records.

    Raises:
        UserError: there is no Slurm here, or submitit knows no such parameter.
    """
    # Jobs inherit the environment of the command that submits them.
    os.environ.update(worker_environment())
    given: dict[str, Any] = {
        "name": "token-routing-bench",
        "timeout_min": MINUTES,
        "nodes": 1,
        "tasks_per_node": 1,
        "cpus_per_task": 1,
        "gpus_per_node": int(on_gpu),
    }
    kind = settings.get("cluster", "slurm")
    parameters = given | {name: value for name, value in settings.items() if name != "cluster"}
    if kind == "slurm" and shutil.which("srun") is None:
        raise UserError(
            "--executor slurm finds no Slurm (srun) on this machine. Start it where jobs are "
            "submitted, or use --executor local."
        )
    try:
        made = not folder.exists()
        # A job may be preempted any number of times; only its time limit ends it for good.
        queue = submitit.AutoExecutor(folder.absolute() / LOGS / "%j", cluster=kind)
        queue.update_parameters(**parameters)
    except (AssertionError, NameError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"--cluster does not fit submitit: {told(error)[:300]}.") from None
    if queue.cluster == "local":
        # submitit counts no cores, and gives the first GPU to each of its local jobs.
        slot = "machine, since all jobs get its first GPU" if on_gpu else "core of this machine"
        workers = at_most(1 if on_gpu else cores(), workers, slot)
    return SlurmJobs(queue, workers or MOST_JOBS, folder / LOGS, made)


class Requeued:
    """A call in a process of its own, which submitit queues again when its job is preempted."""

    def __call__(self, function: Callable[..., Answer], *arguments: Any) -> Answer:
        """Run a function. The process keeps the exception of submitit's signals out of it."""
        process = FreshProcess(quiet=True)
        try:
            return process.run(_until_killed, function, *arguments)
        finally:
            process.close()

    def checkpoint(self, *arguments: Any) -> Any:
        """End the process, and return the call to queue again. Its cell has its own checkpoint."""
        end_processes()
        return submitit.helpers.DelayedSubmission(self, *arguments)


class SlurmJobs(Executor):
    """A job for each function.

    Args:
        queue: submits jobs.
        workers: largest number of jobs in the queue.
        logs: folder of scripts and logs.
        made: whether the folder above it did not exist before.
    """

    def __init__(self, queue: Any, workers: int, logs: Path, made: bool) -> None:
        self.workers, self._queue, self._logs, self._made = workers, queue, logs, made
        self._lock = threading.Lock()
        self._jobs: list[Any] = []
        self._ended = threading.Event()

    def run(self, function: Callable[..., Answer], *arguments: Any, fresh: bool = False) -> Answer:
        """Submit a job and wait for its answer. Each job is a fresh process."""
        # submitit writes a script and calls sbatch, one job after another.
        with self._lock:
            if self._ended.is_set():
                raise WorkerDied("ended")
            job = self._queue.submit(Requeued(), function, *arguments)
            self._jobs.append(job)
        while not job.done():
            if self._ended.wait(POLL_SECONDS):
                raise WorkerDied("cancelled")
        try:
            answer = job.result()
        except (submitit.core.utils.UncompletedJobError, submitit.core.utils.FailedJobError):
            raise WorkerDied(f"see {job.paths.stderr}") from None
        shutil.rmtree(job.paths.folder, ignore_errors=True)
        return answer

    def end(self) -> None:
        """Cancel all jobs."""
        self._ended.set()
        with self._lock:
            jobs, self._jobs = self._jobs, []
        for job in jobs:
            if not job.done():
                job.cancel(check=False)

    def close(self) -> None:
        """Cancel the jobs that are left."""
        self.end()
        # submitit begins each job in the folder `%j`. The logs of a job that died stay, and a dry
        # run leaves nothing.
        ours = [self._logs / "%j", self._logs, *[self._logs.parent] * self._made]
        for empty in ours:
            with suppress(OSError):
                empty.rmdir()


def _until_killed(function: Callable[..., Answer], *arguments: Any) -> Answer:
    """Run a function that no warning of Slurm ends. They come long before it kills the job."""
    # Slurm signals all processes of a job; the parent of this one answers.
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    return function(*arguments)
