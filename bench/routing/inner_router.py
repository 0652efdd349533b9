"""Make and check the router inside the block of another router: two sites in one layer."""

from bench.errors import UserError, let_through, told
from bench.routing.contract import Router
from bench.routing.paths import Paths, Site


def inside_of(router: Router, name: str) -> Router | None:
    """Make the router inside the block of a router; return None if it has none.

    Args:
        router: the router of the block.
        name: its name, for errors.

    Raises:
        UserError: `inside` fails, or returns a router that cannot work there.
    """
    try:
        inner = router.inside()
    except BaseException as error:
        let_through(error)
        raise UserError(f"Router {name!r} fails in `inside`: {told(error)}.") from error
    if inner is None:
        return None
    if wrong := _fault(router, inner):
        raise UserError(f"Router {name!r}: {wrong}")
    return inner


def _fault(router: Router, inner: object) -> str:
    """Return why a router cannot work inside the block of another router; empty if it can."""
    paths = getattr(inner, "paths", None)
    if not isinstance(inner, Router) or not isinstance(paths, Paths):
        return f"`inside` returns {inner!r}; it must return a Router with `paths`, or None."
    if router.paths.site is not Site.BLOCK:
        return "it has a router inside, but its own paths are no block. Set paths = BLOCK_GATE."
    if paths.site is not Site.FFN or paths.segment is not None:
        return (
            f"the router inside its block has {paths}; allowed are paths of an FFN site without a "
            "segment. See docs/routing-paths.md."
        )
    if inner.inside() is not None:
        return "the router inside its block has a router inside; a layer has at most two sites."
    # Its parameters would be in two modules of the decoder, with two optimisers.
    if any(module is inner for module in router.modules()):
        return (
            "the router inside its block is one of its own modules, and would be trained twice. "
            "Make it in `inside`, or keep it in a tuple."
        )
    if inner.supervised or "utility" in inner.needs:
        return (
            "the router inside its block asks for labels or 'utility', which exist for whole "
            "sequences only. Ask for them at the block."
        )
    return ""
