"""Plugins that are valid Python and wrong in some part.

Never a traceback, never exit code 0, and the file stays as it is.
"""

from pathlib import Path
from typing import Any

import pytest

from bench import cli
from tests import world

pytestmark = pytest.mark.usefixtures("forked")
PLUGIN = '''
from bench.routing import FFN_GATE, Router
from bench.routing.registry import register
from bench.routing.capacity import gate_plan


class Halt(BaseException):
    """No Exception, so that only who means to catches it."""


# at import
@register("odd", family="tests")
class Odd(Router):
    """Upgrades every other token."""

    paths = FFN_GATE
    # attribute

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.width = width
        # in __init__

    def forward(self, inputs):
        # in forward
        return gate_plan(inputs.positions % 2 == 1, None)
'''

ATTRIBUTES = [
    *("needs = 5", "needs = None", "needs = 'tags'", "needs = (5,)", "needs = [[]]"),
    *(
        "layers = None",
        "layers = 'some'",
        "layers = (1,)",
        "paths = None",
        "paths = 5",
        "paths = 'cheap'",
        "paths = FFN_GATE.names",
    ),
    *("mean_experts = 'x'", "mean_experts = None"),
    *("wraps = ('nope',)", "wraps = 5", "wraps = None", "wraps = (5,)", "wraps = ('width',)"),
    *("oracle = 3", "allows_none = 'x'", "supervised = 'x'", "supervised = -1.0", "knob = 3"),
]
LOSSES = ["5", "None", "{'a': 5}", "{5: None}", "['a']"]
HALTS = [
    *("raise Halt('halt')", "raise Halt", "raise GeneratorExit"),
    *("import sys; sys.exit(0)", "import sys; sys.exit('halt')", "raise SystemExit"),
]
PLACES = ["# at import", "# in __init__", "# in forward"]


def few(values: list[str]) -> list[Any]:
    """The first and the last; the rest weekly, since each case starts a process of its own."""
    middle = [pytest.param(value, marks=pytest.mark.slow) for value in values[1:-1]]
    return [values[0], *middle, values[-1]]


OTHERS = ["int", "lambda: None", "Odd()", "None", "type('Bare', (), {})"]
NAMES = ["5", "None", "()", "[]", "''", "'two words'", "'../up'", "'line\\n'"]
REGISTRATIONS = [
    *(f'register("other", family="tests")({what})' for what in OTHERS),
    *(f'register({name}, family="tests")(Odd)' for name in NAMES),
    *('register("other", family=5)(Odd)', 'register("other", family="tests", paper=5)(Odd)'),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a suite in it, and a cache of its own."""
    monkeypatch.setenv("TOKEN_ROUTING_BENCH_CACHE", str(tmp_path / "cache"))
    world.write_suite(tmp_path / "suite.yaml", world.write_text(tmp_path), routed_layers=[1])
    return tmp_path


def ends_well(folder: Path, source: str, capsys: Any, *command: str) -> int:
    """Run a command on a plugin, and return its exit code.

    What must hold of every end is asserted.
    """
    path = folder / "odd.py"
    path.write_text(source, encoding="utf-8")
    with world.own_registry():
        code = cli.main([str(path) if word == "FILE" else word for word in command])
    said = capsys.readouterr()
    assert path.read_text(encoding="utf-8") == source
    assert "Traceback" not in said.out + said.err
    if code == 2:
        assert said.err.startswith("error: ") and said.err.count("\n") == 1, said.err
    return code


def check(folder: Path, source: str, capsys: Any) -> None:
    assert ends_well(folder, source, capsys, "check", "FILE") in (1, 2)


def plan(folder: Path, source: str, capsys: Any) -> int:
    return ends_well(
        folder,
        source,
        capsys,
        "plan",
        "--suite",
        str(folder / "suite.yaml"),
        "--plugin",
        "FILE",
        "--routers",
        "odd",
    )


def put(place: str, what: str) -> str:
    assert PLUGIN.count(place) == 1
    return PLUGIN.replace(place, what)


def test_the_plugin_itself_is_sound_enough_to_be_planned(folder: Path, capsys: Any) -> None:
    """Each plugin below is refused for the inserted code alone."""
    assert plan(folder, PLUGIN, capsys) == 0


@pytest.mark.parametrize("line", few(ATTRIBUTES))
def test_an_attribute_of_a_wrong_kind(folder: Path, capsys: Any, line: str) -> None:
    check(folder, put("# attribute", line), capsys)


@pytest.mark.parametrize("line", few(ATTRIBUTES))
def test_an_attribute_of_a_wrong_kind_does_not_break_a_plan_with_a_traceback(
    folder: Path, capsys: Any, line: str
) -> None:
    """A plan looks at less than the checks do: it goes through, or calls the row impossible."""
    assert plan(folder, put("# attribute", line), capsys) in (0, 1, 2)


@pytest.mark.parametrize("value", few(LOSSES))
def test_auxiliary_losses_of_a_wrong_kind(folder: Path, capsys: Any, value: str) -> None:
    """Set on the instance: the constructor of every router replaces the class's own value."""
    check(folder, put("# in __init__", f"self.aux_losses = {value}"), capsys)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("line", few(HALTS))
def test_a_plugin_that_ends_the_program(folder: Path, capsys: Any, place: str, line: str) -> None:
    check(folder, put(place, line), capsys)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("line", few(HALTS))
def test_a_plugin_that_ends_the_program_when_it_is_planned(
    folder: Path, capsys: Any, place: str, line: str
) -> None:
    impossible = place == "# in forward"  # the row is, and the others are planned
    assert plan(folder, put(place, line), capsys) == (1 if impossible else 2)


@pytest.mark.parametrize("line", REGISTRATIONS)
def test_a_registration_of_something_else(folder: Path, capsys: Any, line: str) -> None:
    check(folder, f"{PLUGIN}\n\n{line}\n", capsys)


@pytest.mark.parametrize("line", REGISTRATIONS)
def test_a_registration_of_something_else_when_it_is_planned(
    folder: Path, capsys: Any, line: str
) -> None:
    """A wrong registration next to a sound router is refused with its file, which is loaded whole
    or not at all.
    """
    assert plan(folder, f"{PLUGIN}\n\n{line}\n", capsys) == 2
