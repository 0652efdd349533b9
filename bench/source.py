"""Which source a router is made of: what its content key covers, and what its import runs."""

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from bench.contract import Router

_INSTALLED = frozenset({"site-packages", "dist-packages"})


def own_modules(router: type[Router]) -> list[str]:
    """Names of the modules that define the class and those of its bases that are not from the bench or from torch."""
    names = dict.fromkeys(base.__module__ for base in router.__mro__)
    return [name for name in names if name.split(".")[0] not in ("bench", "torch", "builtins")]


def source_hash_of(router: type[Router]) -> str:
    """SHA-256 of the files that define a router, and of what these import nearby."""
    text = b""
    for module in own_modules(router):
        source = getattr(sys.modules.get(module), "__file__", None)
        text += Path(source).read_bytes() if source else router.__qualname__.encode()
        if source:
            text += b"".join(path.read_bytes() for path in _helpers(sys.modules[module], Path(source).resolve().parent))
    return hashlib.sha256(text).hexdigest()


def helpers_of(module: ModuleType) -> list[ModuleType]:
    """Modules in a module's folder, or below, that have been imported and that it uses."""
    if not getattr(module, "__file__", None):
        return []
    paths = set(_helpers(module, Path(module.__file__ or "").resolve().parent))
    files = ((found, getattr(found, "__file__", None)) for found in list(sys.modules.values()))
    return [found for found, file in files if file and Path(file).resolve() in paths and found is not module]


def _helpers(module: ModuleType, folder: Path) -> list[Path]:
    """Files in the folder, or below, that a module imports, at once or later, and that these import, in order; installed ones left out."""
    start = Path(module.__file__ or "").resolve()
    found, pending = set[Path](), [(start, module.__package__ or "")]
    while pending:
        for path, package in _imports(*pending.pop()):
            inside = path.is_relative_to(folder) and not _INSTALLED & set(path.relative_to(folder).parts)
            if inside and path not in found and path != start:
                found.add(path)
                pending.append((path, package))
    return sorted(found)


def _imports(path: Path, package: str) -> Iterator[tuple[Path, str]]:
    """Files that a file's import statements name, with the package each belongs to."""
    if path.suffix != ".py":
        return
    names = dict[str, None]()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= dict.fromkeys(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
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
