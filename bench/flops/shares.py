"""Scale the shares of tokens that a router states, per layer and path, to the budget."""

from dataclasses import dataclass
from math import isfinite
from statistics import fmean

from bench.errors import UserError, let_through, told
from bench.routing.contract import Router
from bench.routing.paths import Paths


@dataclass(frozen=True)
class Stated:
    """The paths and relative shares of a router, before the budget fixes its size.

    Attributes:
        name: name of the router, for errors.
        paths: the paths to choose among.
        mean_experts: mean number of experts per token, without a base.
        ratios: relative shares, `[layer in use][path]`.
        inside: the same for the router inside its block.
        capacity: given share of tokens to upgrade, a mean over layers; None to solve it.
    """

    name: str
    paths: Paths
    mean_experts: float
    ratios: tuple[tuple[float, ...], ...]
    inside: "Stated | None" = None
    capacity: float | None = None

    @property
    def smallest(self) -> float:
        """Return the smallest relative share of an upgrade above 0; 1.0 without an upgrade."""
        own = [ratio[1] for ratio in self.ratios if self.paths.base and ratio[1]]
        within = [] if self.inside is None else [self.inside.smallest]
        return min([*own, *within]) if own or within else 1.0


@dataclass(frozen=True)
class SiteShares:
    """The shares at which one routed site meets the budget.

    Attributes:
        shares: share of all tokens on each path.
        capacity: share of the site's own tokens to upgrade; 1.0 without a base.
        mean_experts: mean number of experts per token at the site; as stated with a base.
    """

    shares: tuple[float, ...]
    capacity: float
    mean_experts: float


def state(router: Router, inner: Router | None, layers: int, name: str) -> Stated:
    """Ask a router for its relative shares.

    Args:
        router: the router of a layer.
        inner: the router inside its block, or None.
        layers: number of layers in use.
        name: name of the router, for errors.

    Raises:
        UserError: a relative share is not a finite number from 0, or all are 0; or no token can
            take so many experts.
    """
    paths, count = router.paths, len(router.paths.experts)
    ratios = tuple(
        tuple(_ratio(router, path, place, layers, name) for path in paths.names)
        for place in range(layers)
    )
    chosen, always = _experts(paths)
    # These paths carry the free size; without a share it would change nothing.
    free = [paths.names[path] for path in chosen] or paths.names[1:]
    if not any(ratio[paths.names.index(path)] for ratio in ratios for path in free):
        raise UserError(
            f"Router {name!r} gives {' and '.join(free)} the relative share 0 in every layer; one "
            "must have a share in one layer at least. Correct `relative_share`."
        )
    mean = router.mean_experts
    if paths.base is None and not (_is_number(mean) and always < mean <= count):
        raise UserError(
            f"Router {name!r} has mean_experts {mean!r}; a token takes more than {always} and at "
            f"most all {count}."
        )
    within = None if inner is None else state(inner, None, layers, name)
    return Stated(name, paths, mean, ratios, within, _capacity(router, name))


def _capacity(router: Router, name: str) -> float | None:
    """Return the given capacity of a router, or None."""
    given = router.capacity
    if given is None or (router.paths.base and _is_number(given) and 0 < given <= 1):
        return given
    raise UserError(
        f"Router {name!r} has capacity {given!r}; it must be above 0 and at most 1, for paths with "
        "a base, or None."
    )


def sites_at(stated: Stated, factor: float) -> list[list[SiteShares]]:
    """Return the shares of the sites of each layer, in the order of traces.

    Args:
        stated: the relative shares.
        factor: multiplies the relative shares of upgrades, up to a share of 1. The shares of
            experts depend on `mean_experts` alone.

    Raises:
        UserError: a path would take a token more than once.
    """
    layers: list[list[SiteShares]] = []
    for place in range(len(stated.ratios)):
        outer = _site(stated, factor, place)
        if stated.inside is None:
            layers.append([outer])
            continue
        inner = _site(stated.inside, factor, place)
        # A router in a block decides about the tokens of the block alone.
        shares = tuple(outer.capacity * share for share in inner.shares)
        layers.append([SiteShares(shares, inner.capacity, inner.mean_experts), outer])
    return layers


def _site(stated: Stated, factor: float, place: int) -> SiteShares:
    """Return the shares of one site, relative to the tokens at the site."""
    ratio = stated.ratios[place]
    if stated.paths.base is not None:
        # A layer that is full stays full while the factor grows for the others.
        upgraded = min(1.0, factor * ratio[1])
        return SiteShares((1 - upgraded, upgraded), upgraded, stated.mean_experts)
    experts, always = _experts(stated.paths)
    # Only the mean over layers is fixed, so a layer may take more experts than another.
    totals = [sum(one[path] for path in experts) for one in stated.ratios]
    scale = (stated.mean_experts - always) / fmean(totals)
    shares = tuple(
        scale * share if path in stated.paths.chosen else 1.0 for path, share in enumerate(ratio)
    )
    if max(shares) > 1 + 1e-9:
        path = stated.paths.names[shares.index(max(shares))]
        raise UserError(
            f"Router {stated.name!r} gives {path!r} {max(shares):.3f} of the tokens in layer "
            f"{place}, at mean_experts {stated.mean_experts:g}; a path takes a token once at most. "
            "Correct `relative_share`."
        )
    mean = (stated.mean_experts - always) * (totals[place] / fmean(totals))
    return SiteShares(shares, 1.0, always + mean)


def _experts(paths: Paths) -> tuple[list[int], int]:
    """Return the experts that a token may take or not, and how many all tokens take."""
    all_of_them = [paths.names.index(name) for name in paths.experts]
    chosen = [path for path in all_of_them if path in paths.chosen]
    return chosen, len(all_of_them) - len(chosen)


def _ratio(router: Router, path: str, place: int, layers: int, name: str) -> float:
    where = f"{path!r} in layer {place} of {layers}"
    try:
        found = router.relative_share(path, place, layers)
    except BaseException as error:
        let_through(error)
        raise UserError(
            f"Router {name!r} fails in `relative_share` of {where}: {told(error)}."
        ) from error
    if _is_number(found) and isfinite(found) and found >= 0:
        return float(found)
    raise UserError(
        f"Router {name!r} gives {where} the relative share {found!r}; it must be a finite number "
        "from 0. Correct `relative_share`."
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)
