"""Modules beside a plugin file, which it may import."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from bench.errors import UserError

_folders: set[str] = set()
"""Folders of the plugin files that were loaded."""


@contextmanager
def helpers_of(file: Path) -> Generator[None]:
    """Let a plugin import the modules beside it: before all others now, after them later on.

    Raises:
        UserError: a module of that name came from the folder of another plugin.
    """
    folder = str(file.resolve().parent)
    for stem in sorted(path.stem for path in Path(folder).glob("*.py")):
        there = getattr(sys.modules.get(stem), "__file__", None)
        if there and (other := str(Path(there).parent)) in _folders - {folder}:
            raise UserError(
                f"Plugins in {folder!r} and {other!r} both have a helper {stem + '.py'!r}, and "
                "Python keeps one module of a name. Rename one."
            )
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
        if folder not in _folders:
            _folders.add(folder)
            sys.path.append(folder)
