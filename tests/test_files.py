"""Files are written whole or not at all, whatever ends the writer."""

import errno
import fcntl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import SoftFileLock, Timeout

from bench.files import file_lock, require_room, why, write_atomically

ROOT = Path(__file__).parents[1]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: Any
) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        write_atomically(path, "new")
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


WRITER = """
import itertools, sys
from pathlib import Path
from bench.files import write_atomically
for number in itertools.count():
    write_atomically(Path(sys.argv[1]), f"{number % 10}" * 200_000)
"""


def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for round_ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], cwd=ROOT, stderr=subprocess.DEVNULL
        )
        while not path.exists():
            assert writer.poll() is None, "the writer ended by itself"
            time.sleep(0.005)
        time.sleep(0.02 * (round_ + 1))
        writer.kill()
        writer.wait()
        text = path.read_text(encoding="utf-8")
        assert len(text) == 200_000 and len(set(text)) == 1
        path.unlink()


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


def test_room_is_asked_for_by_writing(tmp_path: Path) -> None:
    require_room(tmp_path / "new", 1000)
    assert [path.name for path in tmp_path.rglob("*")] == ["new"]
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        require_room(tmp_path / "file", 1000)


def test_what_the_system_said_names_its_file(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught:
        (tmp_path / "none").read_text()
    assert why(caught.value) == f"No such file or directory: {str(tmp_path / 'none')!r}"
    assert why(OSError("93 requested and 39 written")) == "93 requested and 39 written"
    assert why(OSError()) == "OSError"
