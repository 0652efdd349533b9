"""The text that cells of a file of tests are run on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.data import load_corpus
from tests import world
from tests.runner.jobs import PLUGINS


@pytest.fixture(scope="module")
def text(tmp_path_factory: Any) -> Iterator[Path]:
    """The tiny corpus, built once for all tests of this file and their processes."""
    folder: Path = tmp_path_factory.mktemp("text")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKEN_ROUTING_BENCH_CACHE", str(folder / "cache"))
        path = world.write_text(folder)
        load_corpus(world.suite(path).data)
        yield path


@pytest.fixture
def harmful(tmp_path: Path) -> Iterator[Path]:
    """A file of routers that do harm once training is under way."""
    path = tmp_path / "harmful.py"
    path.write_text(PLUGINS, encoding="utf-8")
    with world.own_registry():
        yield path
