"""Load routers: the package `routers` beside the bench, entry points, and single files.

A module registers its routers while it is imported, by `registry.register`. They are kept here.
"""

import hashlib
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import UserError, let_through, told, unknown
from bench.routing.plugin_imports import helpers_of

if TYPE_CHECKING:
    from bench.routing.registry import Entry

ENTRY_POINT_GROUP = "token_routing_bench.routers"

registered: dict[str, "Entry"] = {}
"""Name of each router -> its entry."""
_loading: list[bool] = []
"""Not empty while a plugin file or an entry point is being loaded."""


def loads_from_outside() -> bool:
    """Return whether a plugin file or an entry point is being loaded."""
    return bool(_loading)


def load_all(plugin_files: list[Path] | None = None) -> dict[str, "Entry"]:
    """Import all routers and return them by name.

    Args:
        plugin_files: further Python files with routers.

    Raises:
        UserError: a plugin cannot be imported, or another package is called `routers`.
    """
    load_shipped()
    # An installed package may offer routers, too.
    for point in installed_points():
        try:
            with _from_outside():
                point.load()
        except BaseException as error:
            let_through(error)
            raise UserError(
                f"Entry point {point.name!r} ({point.value}) failed to load: {told(error)}. "
                "Correct or uninstall it."
            ) from error
    for file in plugin_files or []:
        load_file(file)
    return dict(sorted(registered.items()))


@cache
def installed_points() -> tuple[EntryPoint, ...]:
    """Return the entry points of other distributions.

    They are searched once, because nothing is installed while a process runs.
    """
    return tuple(entry_points(group=ENTRY_POINT_GROUP))


def find(name: str, advice: str = "Give a plugin's file with --plugin FILE.py.") -> "Entry":
    """Return the router registered as `name`, or raise a `UserError` with advice."""
    entries = load_all()
    if name not in entries:
        raise unknown("router", name, entries, advice)
    return entries[name]


def load_file(file: Path) -> list["Entry"]:
    """Import a plugin file, or each file of a folder, and return its routers.

    A plugin may import the modules of its folder.

    Raises:
        UserError: no such file, a file that cannot be imported, or a file without a router.
    """
    if not file.exists():
        raise UserError(
            f"Plugin file {str(file)!r} does not exist. Give the path of a Python file that "
            "registers a router, or of a folder of such files."
        )
    files = sorted(file.glob("[!_.]*.py")) if file.is_dir() else [file]
    found = [entry for one in files for entry in _load_one(one)]
    if not found:
        kind = "folder" if file.is_dir() else "file"
        raise UserError(
            f"Plugin {kind} {str(file)!r} registers no router. Decorate its class with "
            "@register(name, family=...)."
        )
    return found


@contextmanager
def _from_outside() -> Generator[None]:
    _loading.append(True)
    try:
        yield
    finally:
        _loading.pop()


def _load_one(file: Path) -> list["Entry"]:
    """Import one plugin file, unless that was done before, and return its routers."""
    # Two plugins may have the same file name, so the module's name comes from the whole path.
    name = f"router_plugin_{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:12]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            raise UserError(
                f"Plugin file {str(file)!r} is not a Python file: its name must end in .py."
            )
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            with _from_outside(), helpers_of(file):
                spec.loader.exec_module(module)
        except BaseException as error:
            # Leave no trace of a plugin that failed half-way.
            del sys.modules[name]
            for entry in [
                entry for entry in registered.values() if entry.router.__module__ == name
            ]:
                del registered[entry.name]
            let_through(error)
            if isinstance(error, UserError):
                raise
            raise UserError(
                f"Plugin file {str(file)!r} failed to import: {told(error)}."
            ) from error
    return _entries_of(name)


def _entries_of(module: str) -> list["Entry"]:
    # The module of a plugin file has a name of its own, from its whole path.
    return [entry for entry in registered.values() if entry.router.__module__ == module]


def load_shipped() -> dict[str, "Entry"]:
    """Import the package `routers` next to `bench`, and return its routers by name.

    Raises:
        UserError: Python found another package of that name.
    """
    sibling = Path(__file__).resolve().parents[2] / "routers"
    if not sibling.is_dir():
        return {}
    # Any folder `routers` on the path would be found by this name.
    package = importlib.import_module("routers")
    # A namespace package has no __file__, a module no __path__.
    origin = Path(
        next(iter(getattr(package, "__path__", None) or [package.__file__ or ""]))
    ).resolve()
    if origin != sibling:
        raise UserError(
            f"The package 'routers' found at {origin} is not the one next to bench ({sibling}). "
            "Remove it from the path."
        )
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"routers.{module.name}")
    return {name: entry for name, entry in sorted(registered.items()) if not entry.outside}
