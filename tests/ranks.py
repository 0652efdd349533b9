"""Run a function on several ranks: forked processes that talk by gloo."""

import io
import multiprocessing
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch

from bench import ranks


def on_ranks(function: Callable[..., Any], *arguments: Any, size: int = 2) -> list[Any]:
    """Return the answer of each rank; an exception of a rank is raised here."""
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        pipes = [context.Pipe(duplex=False) for _ in range(size)]
        processes = [
            context.Process(target=_rank, args=(rank, size, folder, far, function, arguments))
            for rank, (_, far) in enumerate(pipes)
        ]
        for process in processes:
            process.start()
        for _, far in pipes:
            far.close()
        found = [_answer(near) for near, _ in pipes]
        for process in processes:
            process.join()
    for good, answer in found:
        assert good, answer
    return [torch.load(io.BytesIO(answer), weights_only=False) for _, answer in found]


def _answer(pipe: Connection) -> tuple[bool, Any]:
    try:
        return pipe.recv()
    except EOFError:
        return False, "the process died"


def _rank(
    rank: int,
    size: int,
    folder: str,
    pipe: Connection,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    torch.set_num_threads(1)
    try:
        with ranks.joined(rank, size, init_method=f"file://{folder}/ranks"):
            # Pickled plainly: torch would share the memory of a process that is about to end.
            torch.save(function(*arguments), answer := io.BytesIO())
            pipe.send((True, answer.getvalue()))
    except BaseException:
        pipe.send((False, traceback.format_exc()))
