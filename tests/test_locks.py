"""Locks where the file system has none."""

import errno
import fcntl
from pathlib import Path

import pytest
from filelock import SoftFileLock, Timeout

from bench.locks import file_lock


@pytest.mark.parametrize("error", [OSError(errno.ENOLCK, "No locks"), NotImplementedError()])
def test_without_locks_the_file_is_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(fcntl, "flock", refuse)
    with file_lock(tmp_path / "a.lock") as lock:
        assert isinstance(lock, SoftFileLock) and (tmp_path / "a.lock").exists()
        with pytest.raises(Timeout):
            file_lock(tmp_path / "a.lock", timeout=0).acquire()
    assert not (tmp_path / "a.lock").exists()


def test_with_locks_the_system_keeps_them(tmp_path: Path) -> None:
    with file_lock(tmp_path / "a.lock") as lock:
        assert not isinstance(lock, SoftFileLock)
