"""Handle files, locks and streams: whole writes, locks on any file system, robust output."""

import io
import os
import select
import sys
import tempfile
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

# Both take a while to import, and most commands need neither.
if TYPE_CHECKING:
    from filelock import BaseFileLock
    from rich.console import Console


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write `content` to a temporary file next to `path`, then rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
        # Temporary files are private by default.
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
    """Return the system's message, with the file if the error names one."""
    said = error.strerror or str(error) or type(error).__name__
    return f"{said}: {str(error.filename)!r}" if error.filename else said


def default_cache() -> Path:
    """Return `TOKEN_ROUTING_BENCH_CACHE`, else a folder in `XDG_CACHE_HOME` or `~/.cache`.

    Without a home it is a folder for temporary files.
    """
    name = "token-routing-bench"
    if own := os.environ.get("TOKEN_ROUTING_BENCH_CACHE"):
        return _expanded(own)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return _expanded(shared) / name
    home = _expanded("~")
    return home / ".cache" / name if home.is_absolute() else Path(tempfile.gettempdir()) / name


def _expanded(path: str) -> Path:
    """Return a path with `~` replaced by the home, if the system knows one."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def file_lock(path: Path | str, timeout: float = -1) -> "BaseFileLock":
    """Return a lock on a file in an existing folder.

    Some network file systems refuse locks. There the file itself is the lock. It names its process,
    so that the lock of a dead process can be broken.

    Args:
        path: the file.
        timeout: seconds to wait for another holder; below 0 without end.
    """
    from filelock import FileLock, SoftFileLock

    # Try a real lock in this folder first.
    kind = FileLock if _has_locks(Path(path).parent) else SoftFileLock
    return kind(path, timeout=timeout)


def _has_locks(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            return _can_lock(probe.fileno())
    except OSError:  # not writable: the lock itself gives the better error
        return True


def _can_lock(file: int) -> bool:
    try:
        import fcntl
    except ImportError:  # on Windows locks work everywhere
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (OSError, NotImplementedError):
        return False
    return True


UNFOLDED = 100_000
"""Columns of output that goes to no terminal, so that a path stays on its line."""


def console() -> "Console":
    """Return a console on stdout that folds lines only on a terminal."""
    from rich.console import Console

    class Lenient(Console):
        def on_broken_pipe(self) -> NoReturn:
            """Raise for a reader that went away. Rich alone would exit with code 1."""
            raise BrokenPipeError

    plain = Lenient(highlight=False)
    return plain if plain.is_terminal else Lenient(highlight=False, width=UNFOLDED)


def lenient_streams() -> None:
    """Let stdout and stderr take any text.

    They write an escape for characters that their encoding lacks. Closed ones lead to nowhere;
    else a file that is opened later would take their number.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
            os.set_inheritable(nowhere, True)
            setattr(sys, name, os.fdopen(nowhere, "r" if name == "stdin" else "w"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def live_display(console: "Console") -> bool:
    """Return whether a console can show lines that change: a terminal before a person's eyes.

    A dumb terminal and a CI cannot, and NO_COLOR asks for plain output.
    """
    plain = any(os.environ.get(name, "") not in ("", "0", "false") for name in ("CI", "NO_COLOR"))
    return console.is_interactive and not plain


@contextmanager
def stderr_lines(show: Callable[[str], None]) -> Generator[None]:
    """Send the stderr of this process and its children to `show`, line by line.

    So their prints appear above a live display, and do not break it. A stderr that is no terminal
    is left as it is.
    """
    if sys.platform == "win32" or not sys.stderr.isatty():
        yield
        return
    sys.stderr.flush()
    reading, writing = os.pipe()
    terminal, end = os.dup(2), threading.Event()
    os.dup2(writing, 2)
    os.close(writing)
    thread = threading.Thread(target=_pass_on, args=(reading, show, end), daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        end.set()
        thread.join()


def _pass_on(reading: int, show: Callable[[str], None], end: threading.Event) -> None:
    """Read lines until nothing comes after `end`. A child may hold the pipe open for longer."""
    rest = b""
    while (ready := select.select([reading], [], [], 0.1)[0]) or not end.is_set():
        if not ready:
            continue
        if not (found := os.read(reading, 65536)):
            break
        *lines, rest = (rest + found).split(b"\n")
        for line in lines:
            with suppress(OSError):  # the terminal is gone; the children must not wait for it
                show(line.decode(errors="replace"))
    if rest:
        with suppress(OSError):
            show(rest.decode(errors="replace"))
    os.close(reading)


def drop_stdout() -> None:
    """Redirect stdout to nowhere after its reader went away, so that the last flush is silent."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, sys.stdout.fileno())
    except (AttributeError, OSError, ValueError):  # stdout is closed, or no file at all
        sys.stdout = io.StringIO()
    finally:
        os.close(nowhere)
