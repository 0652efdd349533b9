import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bench.errors import UserError
from bench.routing import load_routers
from tests.routing.plugin import PLUGIN

pytestmark = pytest.mark.usefixtures("own_registry")


def test_a_file_is_loaded_once_and_its_routers_are_found(plugin: Path) -> None:
    (entry,) = load_routers.load_file(plugin)
    assert (entry.name, entry.family, entry.paper) == ("from_a_file", "tests", "arXiv:0000.00000")
    assert load_routers.load_file(plugin) == [entry]
    assert load_routers.find("from_a_file") is entry
    assert load_routers.load_all([plugin])["from_a_file"] is entry


def test_the_nearest_name_is_guessed() -> None:
    with pytest.raises(
        UserError, match=r"Unknown router 'mlp_gat'\. Did you mean 'mlp_gate'\? Available: .*mod"
    ):
        load_routers.find("mlp_gat")
    with pytest.raises(UserError) as far:
        load_routers.find("nothing like it")
    assert "Did you mean" not in str(far.value)


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
    path, before, modules = tmp_path / "broken.py", dict(load_routers.registered), set(sys.modules)
    path.write_text(source, encoding="utf-8")
    with pytest.raises(UserError) as told:
        load_routers.load_file(path)
    assert said in str(told.value) and "\n" not in str(told.value)
    assert load_routers.registered == before
    if said != "registers no router":
        assert not [
            name for name in set(sys.modules) - modules if name.startswith("router_plugin_")
        ]


@pytest.mark.parametrize("name", ["absent.py", "folder.py"])
def test_a_plugin_that_is_no_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.py").mkdir()
    said = "does not exist" if name == "absent.py" else "registers no router"
    with pytest.raises(UserError, match=said):
        load_routers.load_file(tmp_path / name)


def test_a_plugin_that_is_no_python(tmp_path: Path) -> None:
    path = tmp_path / "plugin.txt"
    path.write_text(PLUGIN, encoding="utf-8")
    with pytest.raises(UserError, match=r"must end in \.py"):
        load_routers.load_file(path)


@pytest.mark.parametrize(
    "attributes", [{"__path__": ["elsewhere/routers"]}, {"__file__": "elsewhere/routers.py"}]
)
def test_another_package_of_the_name_is_refused(
    attributes: dict[str, Any], monkeypatch: Any
) -> None:
    stranger = ModuleType("routers")
    vars(stranger).update(attributes)
    monkeypatch.setitem(sys.modules, "routers", stranger)
    with pytest.raises(UserError, match=r"elsewhere.routers.* is not the one next to bench"):
        load_routers.load_all()


def test_entry_points_of_other_distributions_are_loaded_or_named(
    plugin: Path, monkeypatch: Any
) -> None:
    def installed(value: str) -> None:
        point = EntryPoint("theirs", value, load_routers.ENTRY_POINT_GROUP)
        monkeypatch.setattr(load_routers, "installed_points", lambda: (point,))

    monkeypatch.syspath_prepend(str(plugin.parent))
    installed("plugin")
    assert "from_a_file" in load_routers.load_all()
    installed("plugin:Missing")
    with pytest.raises(UserError, match=r"Entry point 'theirs' \(plugin:Missing\) failed to load"):
        load_routers.load_all()


def test_entry_points_are_searched_once(monkeypatch: Any) -> None:
    asked: list[str] = []
    monkeypatch.setattr(load_routers, "entry_points", lambda group: asked.append(group) or [])
    load_routers.installed_points.cache_clear()
    for _ in range(3):
        load_routers.find("mod")
    load_routers.installed_points.cache_clear()
    assert asked == [load_routers.ENTRY_POINT_GROUP]


def test_a_plugin_that_takes_a_name_is_named_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN.replace("from_a_file", "mlp_gate"), encoding="utf-8")
    with pytest.raises(UserError, match=rf"by .*MLPGate in .*gates\.py and .* in {path}\. Rename"):
        load_routers.load_all([path])
