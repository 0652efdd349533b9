"""Standard streams that end no command: any encoding, any reader, any width."""

import io
import os
import sys
from typing import NoReturn

from rich.console import Console

UNFOLDED = 100_000
"""Width of output that goes to no terminal, in columns: a path stays on its line."""


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        """Leave a reader that went away to `bench.cli`, where rich would exit with 1."""
        raise BrokenPipeError


def console() -> Console:
    """Return a console on stdout that folds lines on a terminal alone."""
    plain = _Console(highlight=False)
    return plain if plain.is_terminal else _Console(highlight=False, width=UNFOLDED)


def lenient_streams() -> None:
    """Let stdout and stderr write an escape for a sign that their encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def drop_stdout() -> None:
    """Point stdout to nowhere after its reader went away, so that the last flush is silent."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, sys.stdout.fileno())
    except (AttributeError, OSError, ValueError):  # closed, or no file at all
        sys.stdout = io.StringIO()
    finally:
        os.close(nowhere)
