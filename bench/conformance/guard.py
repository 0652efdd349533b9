"""Nothing but arithmetic: a router reads and writes no files, opens no connection, starts no thread
or process, sets no variable of it.

Interpreter audit events (PEP 578) tell of nearly all of these, whichever library does it. What they
do not tell of is replaced while the guard is up: threads before Python 3.12, and the archive
readers and writers in C++ behind `torch.load` and `torch.save`.
"""

import importlib.machinery
import os
import sys
import threading
import types
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn
from unittest import mock

_REFUSED = (
    "socket.",
    "subprocess.",
    "_thread.start",
    "os.fork",
    "os.posix_spawn",
    "os.spawn",
    "os.exec",
    "os.system",
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.truncate",
    "os.setxattr",
    "os.removexattr",
    "os.chmod",
    "os.chown",
    "os.utime",
    "os.putenv",
    "os.unsetenv",
    "os.chdir",
    "mmap.",
    "os.link",
    "os.symlink",
    "shutil.",
    "urllib.",
    "sqlite3.",
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_MODULES = tuple(importlib.machinery.all_suffixes())

_DEPTH = 8
"""Frames between an open and the import that asks for it, with room for whoever wraps functions."""

_refused: dict[int, list[str]] = {}
"""Thread under guard -> what was refused on it."""
_installed: list[bool] = []


class SideEffect(Exception):
    """A router did more than arithmetic."""


@contextmanager
def sealed() -> Generator[list[str]]:
    """Refuse side effects on this thread by raising `SideEffect` out of the operation, and yield
    the list of those refused.

    The list also tells of those whose exception the plugin swallowed. Modules may still be
    imported, without leaving bytecode behind.
    """
    if not _installed:
        sys.addaudithook(_hook)
        _installed.append(True)
    thread = threading.get_ident()
    _refused[thread] = refused = []
    start = threading.Thread.start

    def start_elsewhere(self: threading.Thread) -> None:
        _refuse("Thread.start") if threading.get_ident() in _refused else start(self)

    replaced = {"sys.dont_write_bytecode": True, "threading.Thread.start": start_elsewhere}
    replaced |= {f"torch._C.PyTorchFile{kind}": _refuse_archive for kind in ("Reader", "Writer")}
    try:
        with ExitStack() as stack:
            for name, value in replaced.items():
                stack.enter_context(mock.patch(name, value))
            yield refused
    finally:
        del _refused[thread]


def _refuse(what: str) -> NoReturn:
    _refused[threading.get_ident()].append(what)
    raise SideEffect(what)


def _refuse_archive(*_: Any, **__: Any) -> NoReturn:
    _refuse("torch.load or torch.save")


def _may_be_read(path: str, frame: types.FrameType | None) -> bool:
    """Whether a source file is opened to import it, or to show a line of a function that is
    running: the corpus has such files too.
    """
    depth = 0
    while frame is not None:
        code = frame.f_code
        importing = (
            depth < _DEPTH
            and code.co_name == "get_data"
            and code.co_filename.startswith("<frozen importlib")
        )
        if importing or code.co_filename == path:
            return True
        frame, depth = frame.f_back, depth + 1
    return False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if threading.get_ident() not in _refused:
        return
    if event == "open":
        path, _, flags = arguments
        reads_module = (
            isinstance(path, str | bytes)
            and os.fsdecode(path).endswith(_MODULES)
            and not int(flags or 0) & _WRITING
        )
        if not (reads_module and _may_be_read(os.fsdecode(path), sys._getframe(1))):  # pyright: ignore[reportPrivateUsage]
            _refuse(f"open of {str(path)!r}")
    elif event.startswith(_REFUSED):
        _refuse(event)
