"""Run functions in fresh processes: one per plugin, and one per cell with a plugin's code."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any, TypeVar

from bench.errors import UserError
from bench.files import lenient_streams

START_METHOD = "spawn"
"""A process that was forked would inherit the modules and locks of this one."""

INTERRUPTS = frozenset({signal.SIGINT, signal.SIGTERM})
"""Signals that end a run. A terminal sends the first, a container or a scheduler the second."""

QUIET_TRACKER = "ignore:resource_tracker:UserWarning"
"""Filter for the tracker's warning of semaphores that a killed process left."""

PARENT_SECONDS = 2.0
"""Time between two looks of a process at its parent."""

Answer = TypeVar("Answer")


class FreshProcess:
    """A process that runs one function after another. It is started again after it died.

    Args:
        quiet: write to stderr alone, so that a plugin's prints do not mix with results.
        environment: further variables of the process.
    """

    def __init__(self, quiet: bool = False, environment: Mapping[str, str] | None = None) -> None:
        self.quiet, self.environment = quiet, environment or {}
        self._pool: ProcessPoolExecutor | None = None

    def run(self, function: Callable[..., Answer], *arguments: Any) -> Answer:
        """Run a function with its arguments and return its answer.

        Raises:
            BrokenProcessPool: the process died.
        """
        if self._pool is None:
            context = multiprocessing.get_context(START_METHOD)
            start = (os.getpid(), self.quiet, self.environment)
            self._pool = ProcessPoolExecutor(1, context, initializer=_begin, initargs=start)
        try:
            # The new process inherits the blocked signals of this thread.
            with _interrupts_held_back():
                answer = self._pool.submit(function, *arguments)
            return answer.result()
        except BrokenProcessPool:
            self.close()
            raise
        except KeyboardInterrupt:
            end_processes()
            raise

    def close(self) -> None:
        """End the process; the next call starts another."""
        if self._pool is not None:
            self._pool.shutdown()
        self._pool = None


def end_processes() -> None:
    """Kill all processes that this one started; their cells resume from checkpoints."""
    for child in multiprocessing.active_children():
        child.kill()


def hold_back_interrupts() -> None:
    """Block interrupts in this thread, and in the processes and threads that it starts.

    A terminal sends SIGINT to parent and children alike. Only the main thread of the parent
    answers. A child would show a traceback. Any other thread that unblocks a signal may take it,
    and the main thread would go on waiting.
    """
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)


@contextmanager
def _interrupts_held_back() -> Generator[None]:
    """Hold back interrupts inside the block, in a thread that may be the main one."""
    start_tracker()
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, set())
    hold_back_interrupts()
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_tracker() -> None:
    """Start the process that tracks resources. The thread that starts it unblocks interrupts.

    If this process is killed, the tracker removes its semaphores. It takes its filters of warnings
    from here, and would otherwise print a warning of Python that looks like a fault of the bench.
    """
    if sys.platform != "win32":
        if QUIET_TRACKER not in sys.warnoptions:
            sys.warnoptions.append(QUIET_TRACKER)
        resource_tracker.ensure_running()


def in_fresh_process(function: Callable[..., Answer], *arguments: Any) -> Answer:
    """Run a function in a process of its own and return its answer.

    Raises:
        UserError: the process died.
    """
    process = FreshProcess(quiet=True)
    try:
        return process.run(function, *arguments)
    except BrokenProcessPool:
        raise UserError(
            "The process that ran the plugin died. Run the plugin's file by itself to see why."
        ) from None
    finally:
        process.close()


def _begin(parent: int, quiet: bool, environment: Mapping[str, str]) -> None:
    """Send prints to stderr if `quiet`, and end this process when its parent is gone.

    So a killed run leaves no process behind.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        # A worker may be ended alone; its cell then crashes, and the run goes on.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    lenient_streams()
    os.environ.update(environment)
    if quiet:
        # By file descriptor, so that prints of compiled code go there too.
        sys.stdout.flush()
        os.dup2(2, 1)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
