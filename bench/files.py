"""Files, locks and streams: written whole or not at all, locked where locks fail, never in the way."""

import io
import os
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from filelock import BaseFileLock, FileLock, SoftFileLock
from rich.console import Console


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write `content` to a temporary file beside `path`, then rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def require_room(folder: Path, size: int) -> None:
    """Write `size` bytes into a folder, which is made, and take them away again.

    Raises:
        OSError: there is no room, or no right to write.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(bytes(size))


def why(error: OSError) -> str:
    """Return what the system said, and of which file where it says so."""
    said = error.strerror or str(error) or type(error).__name__
    return f"{said}: {str(error.filename)!r}" if error.filename else said


def default_cache() -> Path:
    """Return `TOKEN_ROUTING_BENCH_CACHE`, else a folder in `XDG_CACHE_HOME` or `~/.cache`.

    A user without a home has it among the temporary files.
    """
    name = "token-routing-bench"
    if own := os.environ.get("TOKEN_ROUTING_BENCH_CACHE"):
        return _expanded(own)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return _expanded(shared) / name
    home = _expanded("~")
    return home / ".cache" / name if home.is_absolute() else Path(tempfile.gettempdir()) / name


def _expanded(path: str) -> Path:
    """Return a path with `~` as the home; as it stands where the system knows of no home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def file_lock(path: Path | str, timeout: float = -1) -> BaseFileLock:
    """Return a lock on a file in a folder that exists.

    Some network file systems refuse locks. There the mere file is the lock, with the process that
    holds it, so that one left by a dead process is broken.

    Args:
        path: the file.
        timeout: seconds to wait for another holder; below 0, without end.
    """
    kind = FileLock if _has_locks(Path(path).parent) else SoftFileLock
    return kind(path, timeout=timeout)


def _has_locks(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            return _can_lock(probe.fileno())
    except OSError:  # no place to write: the lock itself says so better
        return True


def _can_lock(file: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows, whose locks work everywhere
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (OSError, NotImplementedError):
        return False
    return True


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
