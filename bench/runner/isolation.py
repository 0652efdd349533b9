"""Fresh processes: one for each plugin, and for each cell that runs a plugin's code."""

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from bench.errors import UserError

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
            return self._pool.submit(function, *arguments).result()
        except BrokenProcessPool:
            self.close()
            raise

    def close(self) -> None:
        """End the process; the next call starts another."""
        if self._pool is not None:
            self._pool.shutdown()
        self._pool = None


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
    if quiet:
        sys.stdout.flush()
        os.dup2(2, 1)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
