"""Malformed suites, records and plugins: exit code 2, one line that names the file or the field,
and no good file lost or altered.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench import cli
from bench.errors import UserError
from bench.record import read_record, record_path, write_record
from bench.routing.load_routers import load_file
from tests import world
from tests.record.test_store import cell, record

fuzz = settings(
    max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
)


@pytest.fixture
def told(capsys: Any) -> Callable[..., str]:
    """Run a command that must refuse with exit code 2, and return its one line."""

    def run(*arguments: str) -> str:
        assert cli.main(arguments) == 2
        said: str = capsys.readouterr().err
        assert said.startswith("error: ") and said.count("\n") == 1 and said.endswith("\n"), said
        assert "Traceback" not in said
        return said

    return run


def places(data: Any, where: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in nested data, the whole first."""
    items = (
        data.items()
        if isinstance(data, dict)
        else enumerate(data)
        if isinstance(data, list)
        else ()
    )
    return [where] + [place for name, part in items for place in places(part, (*where, name))]


def put(data: Any, where: tuple[Any, ...], value: Any) -> Any:
    """The data with another value at a place."""
    if not where:
        return value
    copy = dict(data) if isinstance(data, dict) else list(data)
    copy[where[0]] = put(data[where[0]], where[1:], value)
    return copy


@st.composite
def broken_bytes(draw: st.DrawFn, good: bytes) -> bytes:
    """The good content cut, overwritten or spliced at some place; or anything at all."""
    start = draw(st.integers(0, len(good)))
    stop = draw(st.integers(start, min(len(good), start + 50)))
    spliced = good[:start] + draw(st.binary(max_size=20)) + good[stop:]
    return (
        draw(st.sampled_from([spliced, good[:start]]))
        if draw(st.integers(0, 5))
        else draw(st.binary(max_size=200))
    )


NO_DATA = "The suite is sound; its data are refused by the test."


@pytest.fixture
def no_corpus(monkeypatch: Any) -> None:
    """Refuses the data of every suite; other parts are broken here.

    A hub may be asked, or a corpus built.
    """

    def refuse(*_: object, **__: object) -> None:
        raise UserError(NO_DATA)

    monkeypatch.setattr("bench.planning.prediction.text_of", refuse)


@given(data=st.data())
@fuzz
def test_suites(
    tmp_path: Path, told: Callable[..., str], no_corpus: None, data: st.DataObject
) -> None:
    """A suite with one value replaced is refused in one line, or is a suite and refused for its
    data.
    """
    good = world.suite_data(tmp_path / "text.jsonl")
    path = tmp_path / "suite.yaml"
    if data.draw(st.booleans(), label="as bytes"):
        path.write_bytes(data.draw(broken_bytes(yaml.safe_dump(good).encode())))
    else:
        where = data.draw(st.sampled_from(places(good)))
        path.write_text(yaml.safe_dump(put(good, where, data.draw(values))), encoding="utf-8")
    before = path.read_bytes()
    said = told("plan", "--suite", str(path))
    # A router refuses its own options, and the message names the router.
    assert str(path) in said or said == f"error: {NO_DATA}\n" or "router '" in said.lower()
    assert path.read_bytes() == before


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """Two good records, and the assurance that they are still there and the same at the end."""
    for seed in (0, 1):
        one = record(cell=cell(seed=seed))
        write_record(one, record_path(tmp_path, one.cell))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    yield tmp_path
    assert {path: path.read_bytes() for path in before} == before


@given(data=st.data())
@fuzz
def test_records(tree: Path, told: Callable[..., str], data: st.DataObject) -> None:
    """A broken record stops the board by name; the good ones stay as they are."""
    path = tree / "quick" / "mlp_gate" / "b50-flops" / "seed-2.json"
    good = record(cell=cell(seed=2))
    write_record(good, path)
    text = path.read_bytes()
    if data.draw(st.booleans(), label="as bytes"):
        content = data.draw(broken_bytes(text))
    else:
        where = data.draw(st.sampled_from(places(json.loads(text))))
        content = json.dumps(put(json.loads(text), where, data.draw(values))).encode()
    path.write_bytes(content)
    try:
        read_record(path)
    except Exception:
        said = told("leaderboard", "--results", str(tree))
        assert "seed-2.json" in said
        assert not (tree / "leaderboard.md").exists()
    else:
        assert json.loads(content) == json.loads(text), "the written text is read back"
    assert path.read_bytes() == content
    path.unlink()


PLUGIN = '''
from bench.routing import FFN_GATE, Router
from bench.routing.registry import register


@register("fuzzed", family="tests")
class Fuzzed(Router):
    """A router."""

    paths = FFN_GATE

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.width = width

    def forward(self, inputs):
        raise RuntimeError("in the forward pass")
'''


@given(data=st.data())
@fuzz
def test_plugins(tmp_path: Path, data: st.DataObject) -> None:
    """A plugin file cut or spliced anywhere is refused, or its router is, when it is asked for a
    plan; the file stays as it is.

    Here the file is loaded in this process; `tests/runner/test_plugins.py` has the one of its own.
    """
    path = tmp_path / f"plugin{data.draw(st.integers(0, 2**40))}.py"
    content = data.draw(broken_bytes(PLUGIN.encode()))
    path.write_bytes(content)
    with world.own_registry(), pytest.raises(UserError) as refused:
        world.model(load_file(path)[0])
    said = str(refused.value)
    assert path.name in said or "'fuzzed'" in said, said
    assert "\n" not in said
    assert path.read_bytes() == content
    path.unlink()
