"""`bench check` on files of other people, in a process of their own."""

import json
import sys
from pathlib import Path

import pytest

from bench.cli import main
from bench.commands import check
from bench.conformance import find_routers
from bench.errors import UserError
from bench.routing import load_routers, plugin_imports
from tests import world

PLUGIN = """
from helper_of_mine import FACTOR
from bench.routing import FFN_GATE, Router, gate_plan, register

print("a plugin that prints")

@register("{name}", family="tests")
class Mine(Router):
    paths = FFN_GATE

    def forward(self, inputs):
        return gate_plan(inputs.positions % FACTOR == 0, None)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text(PLUGIN.format(name=name), encoding="utf-8")
    (tmp_path / "helper_of_mine.py").write_text("FACTOR = 2", encoding="utf-8")
    return tmp_path


def test_a_plugin_that_prints_spoils_no_json_and_is_not_imported_here(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder names all routers in it; their helpers are found."""
    monkeypatch.setattr(check, "_examine", examine_nothing)
    assert main(["check", str(folder), "--json"]) == 0
    out, error = capfd.readouterr()
    assert [report["router"] for report in json.loads(out)] == ["one", "two"]
    assert "a plugin that prints" in error
    assert not {"helper_of_mine"} & set(sys.modules)


def examine_nothing(router: str, *_: object) -> list[check.RouterReport]:
    return [check.RouterReport(entry.name, entry.family, []) for entry in find_routers(router)]


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mlp_gate", "'mlp_gate' is registered twice: by routers."),
        ("absent/", "'absent' does not exist"),
        ("mlp_gat", "Did you mean 'mlp_gate'?"),
    ],
)
def test_bad_names_are_one_line_without_flags_that_check_does_not_take(
    folder: Path, capfd: pytest.CaptureFixture[str], name: str, said: str
) -> None:
    if name == "mlp_gate":
        (folder / "one.py").write_text(PLUGIN.format(name=name), encoding="utf-8")
        name = str(folder / "one.py")
    elif name == "absent/":
        name = str(folder / "absent")
        said = f"{name!r} does not exist"
    assert main(["check", name]) == 2
    error = capfd.readouterr().err
    assert said in error and "--plugin" not in error and "Traceback" not in error


def test_two_helpers_of_one_name_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python would give the second plugin the helper of the first."""
    other = folder / "other"
    other.mkdir()
    (other / "three.py").write_text(PLUGIN.format(name="three"), encoding="utf-8")
    (other / "helper_of_mine.py").write_text("FACTOR = 3", encoding="utf-8")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(plugin_imports, "_folders", set())
    with world.own_registry():
        load_routers.load_file(folder / "one.py")
        with pytest.raises(UserError, match=r"both have a helper 'helper_of_mine.py'"):
            load_routers.load_file(other / "three.py")
    sys.modules.pop("helper_of_mine")
