"""Fresh processes: one for each plugin, and for each cell that runs a plugin's code."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any, TypeVar

from bench.errors import UserError
from bench.files import lenient_streams

PARENT_SECONDS = 2.0
"""How often a process looks whether its parent is still there."""

Answer = TypeVar("Answer")


class FreshProcess:
    """A process that runs one function after another, and is started anew after it died.

    Args:
        quiet: it writes to stderr alone, so that a plugin's prints spoil nothing.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self._pool: ProcessPoolExecutor | None = None

    def run(self, function: Callable[..., Answer], *arguments: Any) -> Answer:
        """Run a function with its arguments and return its answer.

        Raises:
            BrokenProcessPool: the process died.
        """
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            start = (os.getpid(), self.quiet)
            self._pool = ProcessPoolExecutor(1, context, initializer=_begin, initargs=start)
        try:
            with _interrupts_held_back():  # a process that starts inherits it
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
    """Block SIGINT in this thread, and in the processes and threads that it starts.

    A terminal sends SIGINT to parent and children alike. The main thread of the parent alone
    answers; a child would show the traceback of whatever it was about. Any other thread that
    unblocks SIGINT may take it, and the main thread would go on waiting.
    """
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


@contextmanager
def _interrupts_held_back() -> Generator[None]:
    """Hold back SIGINT for a while, in a thread that may be the main one."""
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
    """Start the process that tracks resources; the thread that does it unblocks SIGINT."""
    if sys.platform != "win32":
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


def _begin(parent: int, quiet: bool) -> None:
    """Send prints to stderr if asked, and end this process when its parent is gone.

    It would not notice by itself: a killed run leaves no process behind.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    lenient_streams()
    if quiet:
        sys.stdout.flush()
        os.dup2(2, 1)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
