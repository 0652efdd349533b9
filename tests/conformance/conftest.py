"""Plugin files as a test sees them: registered while it runs, forgotten afterwards."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from bench.conformance import find_routers
from bench.routing.registry import Entry
from tests import world

GALLERY = Path(__file__).resolve().parent.parent / "gallery"


@pytest.fixture
def plugins() -> Iterator[Callable[[Path], dict[str, Entry]]]:
    """Loads a plugin file and gives its routers by name."""
    with world.own_registry():
        torch.set_num_threads(1)
        yield lambda file: {entry.name: entry for entry in find_routers(file)}


@pytest.fixture
def gallery(plugins: Callable[[Path], dict[str, Entry]]) -> Callable[[str], dict[str, Entry]]:
    """Loads a file of cheaters by its name."""
    return partial(_load, plugins)


def _load(plugins: Callable[[Path], dict[str, Entry]], name: str) -> dict[str, Entry]:
    return plugins(GALLERY / f"{name}.py")
