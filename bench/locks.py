"""Locks on files, also where a file system has none."""

import tempfile
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock


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
