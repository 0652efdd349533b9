"""Places to write to, before and after the work."""

import argparse
from pathlib import Path

import pytest

from bench.commands.places import place, require_file, require_folder, writing
from bench.errors import UserError


def test_a_path_is_a_path_unless_it_cannot_be_one() -> None:
    assert place("runs/mine") == Path("runs/mine")
    for text, said in (("", "cannot be empty"), ("n" * 300, "too long")):
        with pytest.raises(argparse.ArgumentTypeError, match=f"which is no path.*{said}"):
            place(text)


def test_a_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    require_folder(tmp_path / "a" / "b")
    require_folder(tmp_path / "a" / "b")
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b"]


def test_what_cannot_be_made_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "new" / ("n" * 300)):
        with pytest.raises(UserError, match=r"--out is .*, where nothing can be written"):
            require_folder(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    require_file(tmp_path / "board.md")
    (tmp_path / "board.md").touch()
    require_file(tmp_path / "board.md")
    with pytest.raises(UserError, match="is a folder, and a file of that name is to be written"):
        require_file(tmp_path)


def test_a_write_that_fails_is_told_with_the_remedy_and_other_errors_pass() -> None:
    with (
        pytest.raises(UserError, match=r"^'x' cannot be written \(No space left\).*then wait\.$"),
        writing(Path("x"), "wait"),
    ):
        raise OSError(28, "No space left")
    with pytest.raises(KeyError), writing(Path("x"), "wait"):
        raise KeyError
