"""Register routers, by one decorator: `@register(name, family=..., paper=...)`."""

# Code from outside may pass anything, whatever the signatures say.
# pyright: reportUnnecessaryIsInstance=false
import hashlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast

from bench.errors import UserError, let_through, told, unknown
from bench.routing.contract import Router
from bench.routing.fingerprint import numerics_hash, source_hash_of
from bench.routing.inner_router import inside_of
from bench.routing.load_routers import find, loads_from_outside, registered
from bench.routing.paths import Paths
from bench.routing.plugin_imports import placed

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
        object.__setattr__(self, "outside", loads_from_outside())

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
                registered.get(given["router"]) or find(given["router"]),
                dict(given.get("options") or {}),
            )
        return found


def _holds_strings(value: object, kind: Any) -> bool:
    """Return whether a value is a collection of this kind that holds strings alone."""
    return isinstance(value, kind) and all(
        isinstance(part, str) for part in cast(Iterable[object], value)
    )


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
        taken = registered.get(name)
        if taken and _origin(taken.router) != _origin(router):
            raise UserError(
                f"Router name {name!r} is registered twice: by {placed(taken.router)} and "
                f"{placed(router)}. Rename one."
            )
        registered[name] = Entry(name, family, paper, router)
        return router

    return decorate


def _origin(router: type[Router]) -> str:
    return f"{router.__module__}.{router.__qualname__}"
