"""A working directory with a tiny suite, and a tree of records that is trained once."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.cli import main
from tests import world


@pytest.fixture(scope="session")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The text of the tiny suite, and the cache of its corpus."""
    folder = tmp_path_factory.mktemp("elsewhere")
    world.write_text(folder)
    return folder


@pytest.fixture
def place(tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with the tiny suite."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKEN_ROUTING_BENCH_CACHE", str(elsewhere / "cache"))
    world.write_suite(tmp_path / "tiny.yaml", elsewhere / "text.jsonl")
    with world.own_registry():
        yield tmp_path


@pytest.fixture(autouse=True)
def figures_without_drawings(undrawn: None) -> None:
    """Draw the figures of `trained` alone, which are those of real cells."""


@pytest.fixture(scope="session")
def trained(elsewhere: Path) -> Path:
    """The records that `bench run` makes of `mlp_gate` and `hash` at one seed."""
    suite = world.write_suite(elsewhere / "tiny.yaml", elsewhere / "text.jsonl")
    arguments = ["--routers", "mlp_gate,hash", "--seeds", "1", "--workers", "0"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKEN_ROUTING_BENCH_CACHE", str(elsewhere / "cache"))
        # the page names the folder `runs`, and the record the text by its whole path
        (elsewhere / "there").mkdir()
        patch.chdir(elsewhere / "there")
        assert main(["run", "--suite", str(suite), *arguments]) == 0
    return elsewhere / "there" / "runs"


@pytest.fixture
def runs(place: Path, trained: Path) -> Path:
    """A copy of these records, as the folder `runs` of the working directory."""
    shutil.copytree(trained, place / "runs")
    return Path("runs")
