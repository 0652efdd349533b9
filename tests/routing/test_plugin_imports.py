"""Helper files of a plugin: found, and never mixed with those of another plugin."""

import importlib
import sys
from pathlib import Path

import pytest

from bench import errors
from bench.errors import UserError
from bench.routing.plugin_imports import helpers_of, placed


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("bench.routing.plugin_imports._folders", set())
    made = (tmp_path / "one", tmp_path / "two")
    for folder in made:
        folder.mkdir()
        (folder / "helper_of_tests.py").write_text(f"HERE = {folder.name!r}", encoding="utf-8")
    return made


def test_a_helper_is_imported_from_the_folder_of_its_plugin(folders: tuple[Path, Path]) -> None:
    one, two = folders
    try:
        with helpers_of(one / "plugin.py"):
            assert importlib.import_module("helper_of_tests").HERE == "one"
        with (
            pytest.raises(UserError, match=r"both have a helper 'helper_of_tests.py'"),
            helpers_of(two / "plugin.py"),
        ):
            pass
    finally:
        sys.modules.pop("helper_of_tests", None)


def test_the_folder_is_searched_last_after_the_import(folders: tuple[Path, Path]) -> None:
    with helpers_of(folders[0] / "plugin.py"):
        assert sys.path[0] == str(folders[0].resolve())
    assert sys.path[0] != str(folders[0].resolve())
    assert sys.path[-1] == str(folders[0].resolve())


def test_a_class_is_told_with_its_file_if_it_has_one() -> None:
    assert placed(UserError) == f"bench.errors.UserError in {errors.__file__}"
    assert placed(type("Made", (), {"__module__": "absent"})) == "absent.Made"
