"""Find and register routers: in the sibling package `routers`, by entry points, in single files.

All three use one decorator: `@register(name, family=..., paper=...)`.
"""

# Code from outside may pass anything, whatever the signatures say.
# pyright: reportUnnecessaryIsInstance=false
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
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from bench.errors import UserError, let_through, told, unknown
from bench.routing.contract import Router
from bench.routing.fingerprint import numerics_hash, source_hash_of
from bench.routing.inner_router import inside_of
from bench.routing.paths import Paths
from bench.routing.plugin_imports import helpers_of, placed

ENTRY_POINT_GROUP = "token_routing_bench.routers"
# Rows and figures carry this name.
NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"

RouterClass = TypeVar("RouterClass", bound=type[Router])


def options_of(router: type[Router]) -> dict[str, Any]:
    """Return the keyword arguments of a router's constructor with their defaults."""
    return {
        name: p.default
        for name, p in inspect.signature(router.__init__).parameters.items()
        if name != "self"
    }


@dataclass(frozen=True)
class RouterCard:
    """Facts about a router with its options that the harness needs before it builds one.

    They are plain data.

    Attributes:
        name: name in suites and on the command line.
        family: the kind of routing, for the board.
        paper: source of the router; empty for our own controls.
        outside: whether a plugin's code runs with these options, also in a wrapped router.
        source: SHA-256 of the source that runs with these options.
        paths: the paths to choose among.
        layers: the routed layers that it uses, "every" or "other".
        mean_experts: mean number of experts per token.
        capacity: given share of tokens to upgrade, or None.
        inside: paths and mean number of experts of the router inside its block, if it has one.
        needs: inputs that it, or the router inside its block, needs beyond the default.
        losses: name of each auxiliary loss of both -> fields of the trace that are made for it.
    """

    name: str
    family: str
    paper: str
    outside: bool
    source: str
    paths: Paths
    layers: Literal["every", "other"]
    mean_experts: float
    capacity: float | None
    inside: tuple[Paths, float] | None
    needs: frozenset[str]
    losses: Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Entry:
    """A registered router.

    Attributes:
        name: name in suites and on the command line.
        family: the kind of routing, for the board.
        paper: source of the router, e.g. "arXiv:2404.02258"; empty for our own controls.
        router: the class.
        plugin_hash: SHA-256 of the source that defines it, at the time of loading.
        outside: whether it came from a plugin file or an entry point, not from the package
            `routers` of the bench.
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
            UserError: an unknown option, or a value that the router refuses.
        """
        known = options_of(self.router)
        for option in options:
            if option not in known:
                raise unknown(f"option of router {self.name!r}", option, known)
        # Wrapped routers are made first and replace the options that name them.
        inner = {
            name: entry.make(theirs) for name, (entry, theirs) in self.wrapped(options).items()
        }
        try:
            router = self.router(**{**options, **inner})
            paths = getattr(router, "paths", None)
        except BaseException as error:
            let_through(error)
            usual = ", ".join(f"{name}={known[name]!r}" for name in options)
            advice = f" By default they are {usual}." if usual else ""
            raise UserError(
                f"Router {self.name!r} refused the options {options}: {told(error)}.{advice}"
            ) from error
        if "_modules" not in vars(router):
            raise UserError(
                f"Router {self.name!r} is not initialised: call `super().__init__()` at the start "
                "of its `__init__`."
            )
        if not isinstance(paths, Paths):
            raise UserError(
                f"Router {self.name!r} has no paths. Set `paths` to FFN_GATE, BLOCK_GATE or "
                "experts(count)."
            )
        if not _holds_strings(router.needs, frozenset | set):
            raise UserError(
                f"Router {self.name!r} has needs {router.needs!r}; they must be a set of names, "
                "such as frozenset({'tags'})."
            )
        return router

    def describe(self, options: Mapping[str, Any]) -> RouterCard:
        """Construct the router once and return its card.

        Raises:
            UserError: see `make`.
        """
        router = self.make(dict(options))
        inner = inside_of(router, self.name)
        # A router inside a block adds its needs and losses to those of the outer one.
        both = [router] if inner is None else [inner, router]
        return RouterCard(
            name=self.name,
            family=self.family,
            paper=self.paper,
            outside=self.brings_from_outside(options),
            source=self.source_hash(options),
            paths=router.paths,
            layers=router.layers,
            mean_experts=router.mean_experts,
            capacity=router.capacity,
            inside=None if inner is None else (inner.paths, inner.mean_experts),
            needs=frozenset(need for one in both for need in one.needs),
            losses={
                name: frozenset(loss.uses) for one in both for name, loss in one.aux_losses.items()
            },
        )

    def identity(self, options: Mapping[str, Any], training: Mapping[str, Any]) -> str:
        """Return the router's identity for content keys: a hash of its numerics or its source.

        Args:
            options: options of the row.
            training: fields of the row's `RouterTraining` that differ from their defaults.
        """
        own = None if self.outside else numerics_hash(self.name, options, training)
        wrapped = [entry.identity(theirs, {}) for entry, theirs in self.wrapped(options).values()]
        return hashlib.sha256("".join([own or self.plugin_hash, *wrapped]).encode()).hexdigest()

    def source_hash(self, options: Mapping[str, Any]) -> str:
        """Return the SHA-256 of the source of the router and of the routers it wraps."""
        wrapped = [entry.source_hash(theirs) for entry, theirs in self.wrapped(options).values()]
        return (
            hashlib.sha256("".join([self.plugin_hash, *wrapped]).encode()).hexdigest()
            if wrapped
            else self.plugin_hash
        )

    def brings_from_outside(self, options: Mapping[str, Any]) -> bool:
        """Return whether the router, or a router that it wraps, is a plugin's."""
        return self.outside or any(
            entry.brings_from_outside(theirs) for entry, theirs in self.wrapped(options).values()
        )

    def wrapped(self, options: Mapping[str, Any]) -> dict[str, tuple["Entry", dict[str, Any]]]:
        """Return option -> router and its options, for each option that names a router."""
        found: dict[str, tuple[Entry, dict[str, Any]]] = {}
        if not _holds_strings(self.router.wraps, tuple):
            raise UserError(
                f"Router {self.name!r} has wraps {self.router.wraps!r}; it must be a tuple of "
                "names of options."
            )
        # Wrapped routers are described with their wrapper: their sources and needs count too.
        for name in self.router.wraps:
            if name not in options_of(self.router):
                raise UserError(
                    f"Router {self.name!r} wraps {name!r}, which is no option of its constructor. "
                    "Correct `wraps`."
                )
            # A plain name is short for {router: name}.
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
    """Return whether a value is a collection of this kind that holds strings alone."""
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
"""Not empty while a plugin file or an entry point is being loaded."""
_entries: dict[str, Entry] = {}


def register(name: str, *, family: str, paper: str = "") -> Callable[[RouterClass], RouterClass]:
    """Register a router class under `name`.

    Raises:
        UserError: the name is taken by another class or invalid, or the object is no router class.
    """

    def decorate(router: RouterClass) -> RouterClass:
        if not isinstance(router, type) or not issubclass(router, Router):
            raise UserError(
                f"@register({name!r}) decorates {router!r}; it belongs on a subclass of "
                "bench.routing.Router."
            )
        for what, value in (("name", name), ("family", family), ("paper", paper)):
            if not isinstance(value, str):
                raise UserError(
                    f"@register of {router.__name__} has {what} {value!r}; it must be a string."
                )
        if not re.fullmatch(NAME, name):
            raise UserError(
                f"@register of {router.__name__} has name {name!r}; allowed are letters, digits, "
                "_, - and ., as in mlp_gate."
            )
        # The same class may be registered again, when its module is imported again.
        taken = _entries.get(name)
        if taken and _origin(taken.router) != _origin(router):
            raise UserError(
                f"Router name {name!r} is registered twice: by {placed(taken.router)} and "
                f"{placed(router)}. Rename one."
            )
        _entries[name] = Entry(name, family, paper, router)
        return router

    return decorate


def _origin(router: type[Router]) -> str:
    return f"{router.__module__}.{router.__qualname__}"


def load_all(plugin_files: list[Path] | None = None) -> dict[str, Entry]:
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
    return dict(sorted(_entries.items()))


@cache
def installed_points() -> tuple[EntryPoint, ...]:
    """Return the entry points of other distributions.

    They are searched once, because nothing is installed while a process runs.
    """
    return tuple(entry_points(group=ENTRY_POINT_GROUP))


def find(name: str, advice: str = "Give a plugin's file with --plugin FILE.py.") -> Entry:
    """Return the router registered as `name`, or raise a `UserError` with advice."""
    entries = load_all()
    if name not in entries:
        raise unknown("router", name, entries, advice)
    return entries[name]


def load_file(file: Path) -> list[Entry]:
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


def _load_one(file: Path) -> list[Entry]:
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
    return {name: entry for name, entry in sorted(_entries.items()) if not entry.outside}
