"""A plugin file, and a registry that keeps what one test registers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import world
from tests.routing.plugin import PLUGIN


@pytest.fixture
def own_registry() -> Iterator[None]:
    with world.own_registry():
        yield


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "plugin.py"
    path.write_text(PLUGIN, encoding="utf-8")
    return path
