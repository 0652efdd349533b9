"""The files of a plugin that its content key covers."""

import importlib
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

from bench.routing import load_routers, registry
from tests import world
from tests.routing.plugin import PLUGIN


def hash_of_package(folder: Path, scale: int, helper: str, line: str) -> str:
    """Hash of a router in mypkg/routers/gate.py below a folder, which says `line`.

    `helper` is a file next to the package or in it.
    """
    folder.mkdir(parents=True)
    for file, text in {
        "mypkg/routers/gate.py": f"{line}\n{PLUGIN}",
        helper: f"SCALE = {scale}\n",
    }.items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    with (
        world.own_registry(),
        patch.dict(sys.modules),
        patch.object(sys, "path", [str(folder), *sys.path]),
    ):
        importlib.invalidate_caches()
        return registry.Entry(
            "", "", "", importlib.import_module("mypkg.routers.gate").FromAFile
        ).plugin_hash


def test_a_helper_beside_a_plugin_is_part_of_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "again"
    folder.mkdir()
    found: list[str] = []
    for factor in (1, 2):
        for name in ("helper_of_it", "router_plugin"):
            sys.modules.pop(name, None)
        (folder / "helper_of_it.py").write_text(
            f"FACTOR = {factor}\n\n\ndef factor():\n    return FACTOR\n", encoding="utf-8"
        )
        (folder / f"plugin{factor}.py").write_text(
            "from helper_of_it import factor\n" + PLUGIN, encoding="utf-8"
        )
        monkeypatch.syspath_prepend(folder)
        with world.own_registry():
            found.append(load_routers.load_file(folder / f"plugin{factor}.py")[0].plugin_hash)
    assert found[0] != found[1]


@pytest.mark.parametrize(
    "line", ["from constant_of_it import SCALE\n", "def late():\n    import constant_of_it\n"]
)
def test_a_constant_beside_a_plugin_is_part_of_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    found: list[str] = []
    for scale in (1, 7):
        sys.modules.pop("constant_of_it", None)
        (tmp_path / "constant_of_it.py").write_text(f"SCALE = {scale}\n", encoding="utf-8")
        (tmp_path / f"plugin{scale}.py").write_text(line + PLUGIN, encoding="utf-8")
        with world.own_registry():
            found.append(load_routers.load_file(tmp_path / f"plugin{scale}.py")[0].plugin_hash)
    assert found[0] != found[1]


@pytest.mark.parametrize(
    ("folder", "helper", "line", "covered"),
    [
        ("somewhere", "mypkg/common/maths.py", "from ..common.maths import SCALE", True),
        ("site-packages", "mypkg/common/maths.py", "from ..common.maths import SCALE", True),
        ("somewhere", "helper_of_mine.py", "from helper_of_mine import SCALE", True),
        ("site-packages", "helper_of_others.py", "from helper_of_others import SCALE", False),
    ],
)
def test_a_packages_source_is_all_that_is_its_authors_own(
    tmp_path: Path, folder: str, helper: str, line: str, covered: bool
) -> None:
    """Above the router's folder, and next to the package.

    Installed libraries count by their versions.
    """
    found = {
        hash_of_package(tmp_path / str(scale) / folder, scale, helper, line) for scale in (1, 7)
    }
    assert len(found) == (2 if covered else 1)
