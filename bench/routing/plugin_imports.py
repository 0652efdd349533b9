"""Let a plugin file import the modules of its folder.

A plugin imports torch, jaxtyping, the standard library, `bench.routing` and the modules of its own
folder. Only the last need help: their folder is not on the path of modules.
"""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from bench.errors import UserError

_folders: set[str] = set()
"""Folders of the loaded plugin files."""


@contextmanager
def helpers_of(file: Path) -> Generator[None]:
    """Let a plugin import the modules of its folder, inside the `with` block and later.

    Inside the block they come before all other modules, later after them.

    Raises:
        UserError: the folder of another plugin has a module of the same name.
    """
    folder = str(file.resolve().parent)
    for stem in sorted(path.stem for path in Path(folder).glob("*.py")):
        # Python would silently give this plugin the other plugin's module.
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
        # A plugin may import its helpers only when it runs.
        if folder not in _folders:
            _folders.add(folder)
            sys.path.append(folder)


def placed(router: type) -> str:
    """Return a class with its file, since the module of a plugin has a name of our own."""
    name = f"{router.__module__}.{router.__qualname__}"
    file = getattr(sys.modules.get(router.__module__), "__file__", None)
    return f"{name} in {file}" if file else name
