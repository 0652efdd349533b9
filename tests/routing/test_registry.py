import importlib
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import pytest

from bench.errors import UserError
from bench.routing import registry
from bench.routing.contract import FFN_GATE, Router
from tests import tiny

PLUGIN = """
from bench.routing.contract import FFN_GATE, Router
from bench.routing.registry import register

@register("from_a_file", family="tests", paper="arXiv:0000.00000")
class FromAFile(Router):
    paths = FFN_GATE

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width is {width}; it must be above 0.")
"""


@pytest.fixture(autouse=True)
def own_registry() -> Iterator[None]:
    with tiny.own_registry():
        yield


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "plugin.py"
    path.write_text(PLUGIN, encoding="utf-8")
    return path


def test_a_file_is_loaded_once_and_its_routers_are_found(plugin: Path) -> None:
    (entry,) = registry.load_file(plugin)
    assert (entry.name, entry.family, entry.paper) == ("from_a_file", "tests", "arXiv:0000.00000")
    assert registry.load_file(plugin) == [entry]
    assert registry.find("from_a_file") is entry
    assert registry.load_all([plugin])["from_a_file"] is entry


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
        with tiny.own_registry():
            found.append(registry.load_file(folder / f"plugin{factor}.py")[0].plugin_hash)
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
        with tiny.own_registry():
            found.append(registry.load_file(tmp_path / f"plugin{scale}.py")[0].plugin_hash)
    assert found[0] != found[1]


def hash_of_package(folder: Path, scale: int, helper: str, line: str) -> str:
    """Hash of a router in mypkg/routers/gate.py below a folder, which says `line`.

    `helper` is a file beside the package or in it.
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
        tiny.own_registry(),
        patch.dict(sys.modules),
        patch.object(sys, "path", [str(folder), *sys.path]),
    ):
        importlib.invalidate_caches()
        return registry.Entry(
            "", "", "", importlib.import_module("mypkg.routers.gate").FromAFile
        ).plugin_hash


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
    """Above the router's folder as well as beside the package.

    Libraries that are installed are told by their versions.
    """
    found = {
        hash_of_package(tmp_path / str(scale) / folder, scale, helper, line) for scale in (1, 7)
    }
    assert len(found) == (2 if covered else 1)


def test_the_nearest_name_is_guessed() -> None:
    with pytest.raises(
        UserError, match=r"Unknown router 'mlp_gat'\. Did you mean 'mlp_gate'\? Available: .*mod"
    ):
        registry.find("mlp_gat")
    with pytest.raises(UserError) as far:
        registry.find("nothing like it")
    assert "Did you mean" not in str(far.value)


def test_options_are_checked_by_name_and_by_the_router(plugin: Path) -> None:
    (entry,) = registry.load_file(plugin)
    with pytest.raises(
        UserError, match=r"Unknown option of router 'from_a_file' 'widht'\. Did you mean 'width'\?"
    ):
        entry.make({"widht": 3})
    with pytest.raises(UserError, match="width is 0; it must be above 0"):
        entry.make({"width": 0})
    assert isinstance(entry.make({"width": 5}), Router)


def test_a_name_belongs_to_one_class() -> None:
    class First(Router):
        paths = FFN_GATE

    class Second(Router):
        paths = FFN_GATE

    registry.register("taken", family="tests")(First)
    registry.register("taken", family="tests")(First)
    with pytest.raises(UserError, match=r"'taken' is registered twice: by .*First and .*Second"):
        registry.register("taken", family="tests")(Second)
    assert registry.find("taken").router is First


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def", "SyntaxError"),
        ("x = 1 / 0", "ZeroDivisionError"),
        ("import nothing_of_this_name", "ModuleNotFoundError"),
        ("raise SystemExit(3)", "SystemExit"),
        ("\0", "null bytes"),
        ("x = 1", "registers no router"),
        (PLUGIN.replace("from_a_file", "mlp_gate"), "registered twice"),
        (PLUGIN + "\nraise RuntimeError('two\\nlines')", "RuntimeError"),
    ],
)
def test_a_plugin_that_does_not_load_is_told_in_one_line_and_leaves_nothing(
    tmp_path: Path, source: str, said: str
) -> None:
    path, before, modules = tmp_path / "broken.py", dict(registry._entries), set(sys.modules)
    path.write_text(source, encoding="utf-8")
    with pytest.raises(UserError) as told:
        registry.load_file(path)
    assert said in str(told.value) and "\n" not in str(told.value)
    assert registry._entries == before
    if said != "registers no router":
        assert not [
            name for name in set(sys.modules) - modules if name.startswith("router_plugin_")
        ]


@pytest.mark.parametrize("name", ["absent.py", "folder.py"])
def test_a_plugin_that_is_no_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(UserError, match="does not exist"):
        registry.load_file(tmp_path / name)


def test_a_plugin_that_is_no_python(tmp_path: Path) -> None:
    path = tmp_path / "plugin.txt"
    path.write_text(PLUGIN, encoding="utf-8")
    with pytest.raises(UserError, match=r"must end in \.py"):
        registry.load_file(path)


@pytest.mark.parametrize(
    "attributes", [{"__path__": ["elsewhere/routers"]}, {"__file__": "elsewhere/routers.py"}]
)
def test_another_package_of_the_name_is_refused(
    attributes: dict[str, Any], monkeypatch: Any
) -> None:
    stranger = ModuleType("routers")
    vars(stranger).update(attributes)
    monkeypatch.setitem(sys.modules, "routers", stranger)
    with pytest.raises(UserError, match=r"elsewhere.routers.* is not the one beside bench"):
        registry.load_all()


def test_entry_points_of_other_distributions_are_loaded_or_named(
    plugin: Path, monkeypatch: Any
) -> None:
    def installed(value: str) -> None:
        point = EntryPoint("theirs", value, registry.ENTRY_POINT_GROUP)
        monkeypatch.setattr(
            registry,
            "entry_points",
            lambda group: [point] if group == registry.ENTRY_POINT_GROUP else [],
        )

    monkeypatch.syspath_prepend(str(plugin.parent))
    installed("plugin")
    assert "from_a_file" in registry.load_all()
    installed("plugin:Missing")
    with pytest.raises(UserError, match=r"Entry point 'theirs' \(plugin:Missing\) failed to load"):
        registry.load_all()
