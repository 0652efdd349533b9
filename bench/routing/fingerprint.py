"""Identify routers, for the content keys of records.

A shipped router is identified by its numerics. `routers/fingerprints.json` holds them, and a test
compares them with the code. So an edited comment or a moved import retires no record. A router from
outside is identified by its source, because no test vouches for its numerics.
"""

import ast
import hashlib
import importlib.util
import json
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.routing.contract import Router

_OTHERS = frozenset({"bench", "torch", *sys.stdlib_module_names})
"""Packages whose versions are in the record, or that the rules version covers."""
_STDLIB = Path(sysconfig.get_paths()["stdlib"]).resolve()
_INSTALLED = frozenset({"site-packages", "dist-packages"})


FINGERPRINTS = Path(__file__).resolve().parents[2] / "routers" / "fingerprints.json"
"""Losses and FLOPs of each shipped router and row in a few steps: see `tests/fingerprints.py`."""


@cache
def stored_fingerprints() -> dict[str, Any]:
    """Return the stored fingerprints of shipped routers, or none without the package `routers`."""
    if not FINGERPRINTS.is_file():
        return {"routers": {}, "rows": {}}
    return json.loads(FINGERPRINTS.read_text(encoding="utf-8"))


def row_name(router: str, options: Mapping[str, Any], training: Mapping[str, Any]) -> str:
    """Return the name of a combination of router, options and training in the stored file.

    Args:
        router: registered name.
        options: options of the row.
        training: fields of the row's `RouterTraining` that differ from their defaults.
    """
    return f"{router} {json.dumps([dict(options), dict(training)], sort_keys=True)}"


def numerics_hash(
    router: str, options: Mapping[str, Any], training: Mapping[str, Any]
) -> str | None:
    """Return the SHA-256 of the stored fingerprints of a router and of this row, or None."""
    stored = stored_fingerprints()
    if router not in stored["routers"]:
        return None
    own = stored["rows"].get(row_name(router, options, training))
    text = json.dumps([stored["routers"][router], own], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def own_modules(router: type[Router]) -> list[str]:
    """Return the modules of a class and its bases, without those of bench, torch and Python."""
    names = dict.fromkeys(base.__module__ for base in router.__mro__)
    return [name for name in names if name.split(".")[0] not in _OTHERS]


def source_hash_of(router: type[Router]) -> str:
    """Return the SHA-256 of the files that define a router and of their helper modules.

    A helper is an imported file that is not installed, or that belongs to the router's own package.
    """
    text = b""
    for module in own_modules(router):
        source = getattr(sys.modules.get(module), "__file__", None)
        # A class typed into a session has no file; its name must do.
        text += Path(source).read_bytes() if source else router.__qualname__.encode()
        if source:
            text += b"".join(path.read_bytes() for path in _helpers(sys.modules[module]))
    return hashlib.sha256(text).hexdigest()


def _helpers(module: ModuleType) -> list[Path]:
    """Return the files that a module imports, directly or through others, in order.

    Installed files are left out, except those of its own package.
    """
    start = Path(module.__file__ or "").resolve()
    home = (
        start.parents[len((module.__package__ or "").split(".")) - 1]
        if module.__package__
        else start.parent
    )
    # Follow imports from file to file, and stop at installed packages and the standard library.
    found, pending = set[Path](), [(start, module.__package__ or "")]
    while pending:
        for path, package in _imports(*pending.pop()):
            at_home = path.is_relative_to(home)
            installed = _INSTALLED & set((path.relative_to(home) if at_home else path).parts)
            if (
                not installed
                and (at_home or not path.is_relative_to(_STDLIB))
                and path not in found
                and path != start
            ):
                found.add(path)
                pending.append((path, package))
    return sorted(found)


def _imports(path: Path, package: str) -> Iterator[tuple[Path, str]]:
    """Yield the files named by a file's import statements, with the package of each."""
    if path.suffix != ".py":
        return
    names = dict[str, None]()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= dict.fromkeys(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # `from a import b` may import a module or a name, so both are tried.
            base = f"{'.' * node.level}{node.module or ''}"
            dotted = base if base.endswith(".") else f"{base}."
            names |= dict.fromkeys([base, *(dotted + alias.name for alias in node.names)])
    for name in names:
        with suppress(ImportError, ValueError):  # a name that is no module
            full = importlib.util.resolve_name(name, package) if name.startswith(".") else name
            if (
                full.split(".")[0] not in ("bench", "torch")
                and (spec := importlib.util.find_spec(full))
                and spec.has_location
                and spec.origin
            ):
                yield Path(spec.origin).resolve(), spec.parent or ""
