"""Where routers are found: the sibling package `routers`, entry points of other distributions,
single files.

One registration path serves all three: the decorator `@register(name, family=..., paper=...)`.
"""

import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from bench.errors import UserError, let_through, told, unknown
from bench.routing.beside import helpers_of
from bench.routing.contract import Paths, Router
from bench.routing.fingerprint import numerics_hash, source_hash_of

ENTRY_POINT_GROUP = "token_routing_bench.routers"
NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"  # rows and figures are called by it

RouterClass = TypeVar("RouterClass", bound=type[Router])


def options_of(router: type[Router]) -> dict[str, Any]:
    """Keyword arguments of a router's constructor with their defaults."""
    return {
        name: p.default
        for name, p in inspect.signature(router.__init__).parameters.items()
        if name != "self"
    }


@dataclass(frozen=True)
class RouterCard:
    """What the harness must know of a router with its options before it builds one: plain data.

    Attributes:
        name: how suites and the command line call it.
        family: the kind of routing, for the board.
        paper: its source; empty for controls of our own.
        outside: a plugin's code runs with these options: the router's own, or that of one it wraps.
        source: SHA-256 of the source that runs with these options.
        paths: the paths chosen among.
        layers: which routed layers it uses.
        mean_experts: experts a token takes on average.
        needs: what it asks for beyond the default.
        losses: name of each auxiliary loss -> fields of the trace that are made for it.
    """

    name: str
    family: str
    paper: str
    outside: bool
    source: str
    paths: Paths
    layers: Literal["every", "other"]
    mean_experts: float
    needs: frozenset[str]
    losses: Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Entry:
    """A registered router.

    Attributes:
        name: how suites and the command line call it.
        family: the kind of routing it belongs to, for the board.
        paper: its source, e.g. "arXiv:2404.02258"; empty for controls of our own.
        router: the class.
        plugin_hash: SHA-256 of the source that defines it, as it was when it was loaded.
        outside: whether it came from a plugin file or an entry point, and not from the package
            beside the bench.
    """

    name: str
    family: str
    paper: str
    router: type[Router]
    plugin_hash: str = field(init=False)
    outside: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "plugin_hash", source_hash_of(self.router))
        object.__setattr__(self, "outside", bool(_loading))

    def make(self, options: dict[str, Any]) -> Router:
        """Construct the router with options by name.

        Raises:
            UserError: an option that the router does not have, or a value that it refuses.
        """
        known = options_of(self.router)
        for option in options:
            if option not in known:
                raise unknown(f"option of router {self.name!r}", option, known)
        inner = {
            name: entry.make(theirs) for name, (entry, theirs) in self.wrapped(options).items()
        }
        try:
            router = self.router(**{**options, **inner})
            paths = getattr(router, "paths", None)
        except BaseException as error:
            let_through(error)
            raise UserError(
                f"Router {self.name!r} refused the options {options}: {told(error)}"
            ) from error
        if not isinstance(paths, Paths):
            raise UserError(
                f"Router {self.name!r} has no paths. Set `paths` to FFN_GATE, BLOCK_GATE or experts(count)."
            )
        if not _holds_strings(router.needs, frozenset | set):
            raise UserError(
                f"Router {self.name!r} has needs {router.needs!r}; they must be a set of names, such as frozenset({{'tags'}})."
            )
        return router

    def describe(self, options: Mapping[str, Any]) -> RouterCard:
        """Construct the router once and return what the harness must know of it.

        Raises:
            UserError: see `make`.
        """
        router = self.make(dict(options))
        return RouterCard(
            name=self.name,
            family=self.family,
            paper=self.paper,
            outside=self.brings_from_outside(options),
            source=self.source_hash(options),
            paths=router.paths,
            layers=router.layers,
            mean_experts=router.mean_experts,
            needs=frozenset(router.needs),
            losses={name: frozenset(loss.uses) for name, loss in router.aux_losses.items()},
        )

    def identity(self, options: Mapping[str, Any], training: Mapping[str, Any]) -> str:
        """Return the hash by which content keys know the router: of numerics, or of source.

        Args:
            options: as the row gives them.
            training: fields of the row's `RouterTraining` that differ from their defaults.
        """
        own = None if self.outside else numerics_hash(self.name, options, training)
        wrapped = [entry.identity(theirs, {}) for entry, theirs in self.wrapped(options).values()]
        return hashlib.sha256("".join([own or self.plugin_hash, *wrapped]).encode()).hexdigest()

    def source_hash(self, options: Mapping[str, Any]) -> str:
        """SHA-256 of all source that the router runs with these options.

        Its own and that of the routers it wraps.
        """
        wrapped = [entry.source_hash(theirs) for entry, theirs in self.wrapped(options).values()]
        return (
            hashlib.sha256("".join([self.plugin_hash, *wrapped]).encode()).hexdigest()
            if wrapped
            else self.plugin_hash
        )

    def brings_from_outside(self, options: Mapping[str, Any]) -> bool:
        """Whether a plugin's code runs with these options.

        The router's own, or that of one it wraps.
        """
        return self.outside or any(
            entry.brings_from_outside(theirs) for entry, theirs in self.wrapped(options).values()
        )

    def wrapped(self, options: Mapping[str, Any]) -> dict[str, tuple["Entry", dict[str, Any]]]:
        """Each option that stands for a router -> that router and its options."""
        found: dict[str, tuple[Entry, dict[str, Any]]] = {}
        if not _holds_strings(self.router.wraps, tuple):
            raise UserError(
                f"Router {self.name!r} has wraps {self.router.wraps!r}; it must be a tuple of names of options."
            )
        for name in self.router.wraps:
            if name not in options_of(self.router):
                raise UserError(
                    f"Router {self.name!r} wraps {name!r}, which is no option of its constructor. Mend `wraps`."
                )
            value: object = options.get(name, options_of(self.router)[name])
            given: Mapping[str, Any] = (
                {"router": value}
                if isinstance(value, str)
                else cast(Mapping[str, Any], value)
                if isinstance(value, Mapping)
                else {}
            )
            if not isinstance(given.get("router"), str) or not given.keys() <= {
                "router",
                "options",
            }:
                allowed = "a router's name, or {router: name, options: {...}}"
                raise UserError(
                    f"Option {name!r} of router {self.name!r} is {value!r}; allowed is {allowed}."
                )
            found[name] = (
                _entries.get(given["router"]) or find(given["router"]),
                dict(given.get("options") or {}),
            )
        return found


def _holds_strings(value: object, kind: Any) -> bool:
    """Return whether a value is a collection of this kind, of strings alone."""
    return isinstance(value, kind) and all(
        isinstance(part, str) for part in cast(Iterable[object], value)
    )


@contextmanager
def _from_outside() -> Generator[None]:
    _loading.append(True)
    try:
        yield
    finally:
        _loading.pop()


_loading: list[bool] = []
"""Not empty while a plugin file or an entry point is loaded."""
_entries: dict[str, Entry] = {}


def register(name: str, *, family: str, paper: str = "") -> Callable[[RouterClass], RouterClass]:
    """Class decorator that makes a router known by `name`.

    Raises:
        UserError: the name is taken by another class or no sound one, or what is registered is no
            router.
    """

    def decorate(router: RouterClass) -> RouterClass:
        if not isinstance(router, type) or not issubclass(router, Router):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UserError(
                f"@register({name!r}) stands on {router!r}; it belongs on a subclass of bench.routing.Router."
            )
        for what, value in (("name", name), ("family", family), ("paper", paper)):
            if not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise UserError(
                    f"@register of {router.__name__} has {what} {value!r}; it must be a string."
                )
        if not re.fullmatch(NAME, name):
            raise UserError(
                f"@register of {router.__name__} has name {name!r}; allowed are letters, digits, _, - and ., as in mlp_gate."
            )
        taken = _entries.get(name)
        if taken and _origin(taken.router) != _origin(router):
            raise UserError(
                f"Router name {name!r} is registered twice: by {_origin(taken.router)} and {_origin(router)}. Rename one."
            )
        _entries[name] = Entry(name, family, paper, router)
        return router

    return decorate


def _origin(router: type[Router]) -> str:
    return f"{router.__module__}.{router.__qualname__}"


def load_all(plugin_files: list[Path] | None = None) -> dict[str, Entry]:
    """Import every router there is and return them by name.

    Args:
        plugin_files: Python files outside the package to register too.

    Raises:
        UserError: a plugin that cannot be imported, or a `routers` package that is not ours.
    """
    load_shipped()
    for point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            with _from_outside():
                point.load()
        except BaseException as error:
            let_through(error)
            raise UserError(
                f"Entry point {point.name!r} ({point.value}) failed to load: {told(error)}. Mend or uninstall it."
            ) from error
    for file in plugin_files or []:
        load_file(file)
    return dict(sorted(_entries.items()))


def find(name: str, advice: str = "Give a plugin's file with --plugin FILE.py.") -> Entry:
    """Return the router registered as `name`; without one, raise with the nearest and advice."""
    entries = load_all()
    if name not in entries:
        raise unknown("router", name, entries, advice)
    return entries[name]


def load_file(file: Path) -> list[Entry]:
    """Import a plugin file, or each file of a folder, and return the routers it registered.

    Modules that lie beside the file can be imported by it.

    Raises:
        UserError: no such file, one that cannot be imported, or no router in it.
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


def _load_one(file: Path) -> list[Entry]:
    """Import one plugin file unless that was done, and return the routers that it registered."""
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
            del sys.modules[name]
            for entry in [entry for entry in _entries.values() if entry.router.__module__ == name]:
                del _entries[entry.name]
            let_through(error)
            if isinstance(error, UserError):
                raise
            raise UserError(
                f"Plugin file {str(file)!r} failed to import: {told(error)}."
            ) from error
    return [entry for entry in _entries.values() if entry.router.__module__ == name]


def load_shipped() -> dict[str, Entry]:
    """Import the `routers` package that lies beside `bench`, and return its routers by name.

    Raises:
        UserError: another package of that name was found.
    """
    sibling = Path(__file__).resolve().parents[2] / "routers"
    if not sibling.is_dir():
        return {}
    package = importlib.import_module("routers")
    # A namespace package has no __file__, a module no __path__.
    origin = Path(
        next(iter(getattr(package, "__path__", None) or [package.__file__ or ""]))
    ).resolve()
    if origin != sibling:
        raise UserError(
            f"The package 'routers' found at {origin} is not the one beside bench ({sibling}). Remove it from the path."
        )
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"routers.{module.name}")
    return {name: entry for name, entry in sorted(_entries.items()) if not entry.outside}
