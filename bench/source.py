"""Which source a router is made of: what its content key covers, and what its import runs."""

import hashlib
import sys
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


def _helpers(module: ModuleType, folder: Path) -> list[Path]:
    """Files in the folder, or below, of modules that a module uses, and that these use, in order; installed packages are not among them."""
    found, pending = set[Path](), [module]
    while pending:
        for value in list(vars(pending.pop()).values()):
            name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            used = sys.modules.get(name) if isinstance(name, str) and name.split(".")[0] != "bench" else None
            file = getattr(used, "__file__", None)
            if used is None or used is module or not file:
                continue
            path = Path(file).resolve()
            if path not in found and path.is_relative_to(folder) and not _INSTALLED & set(path.relative_to(folder).parts):
                found.add(path)
                pending.append(used)
    return sorted(found)
