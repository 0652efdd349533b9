"""Solve the size of a router whose model costs exactly the budget B per token.

B = fixed part + rho * full + (1 - rho) * cheap over the routed sites, in active FLOPs per token of
the whole model. A router with a base path gets a capacity. A router without one gets an expert
width. The cost of the model includes the router's own work. If layers or paths have relative
shares, one factor scales them all. The cost of a router with a given capacity follows from it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean

import torch

from bench.backbone.decoder import Decoder, DecoderConfig
from bench.errors import UserError
from bench.flops.ledger import Ledger
from bench.flops.shares import SiteShares, Stated, sites_at
from bench.routing.contract import Router
from bench.routing.paths import FFN_GATE, Paths


class StandIn(Router):
    """Hold the place of a router, for its paths. It is never asked for a plan."""

    def __init__(self, paths: Paths = FFN_GATE) -> None:
        super().__init__()
        self.paths = paths


@dataclass(frozen=True)
class DenseCosts:
    """Active FLOPs per token of the model without routers, all routed sites full, or all cheap."""

    full: float
    cheap: float

    def at(self, rho: float) -> float:
        """Return the budget B at a share rho of full paths."""
        return rho * self.full + (1 - rho) * self.cheap


@dataclass(frozen=True)
class Solution:
    """The budget, and the size of one router that meets it.

    Attributes:
        target: FLOPs per token to spend: B, or the cost of a given capacity.
        budget: B, FLOPs per token.
        dense: FLOPs per token with every routed site full.
        capacity: share of tokens to upgrade, a mean over layers; 1.0 without a base.
        expert_width: hidden width of an expert; 0 without experts.
        sites: for each site, in the order of the decoder's routers, the shares at which B is met.
        layers: routed layers in use.
    """

    target: float
    budget: float
    dense: float
    capacity: float
    expert_width: int
    sites: tuple[SiteShares, ...]
    layers: tuple[int, ...]

    @property
    def shares(self) -> tuple[tuple[float, ...], ...]:
        """Return, for each site, the share of all tokens on each path at which B is met."""
        return tuple(site.shares for site in self.sites)

    def of_layer(self, layer: int) -> tuple[SiteShares, ...]:
        """Return the sites of one layer in use."""
        each = len(self.sites) // len(self.layers)
        first = self.layers.index(layer) * each
        return self.sites[first : first + each]


def dense_costs(config: DecoderConfig, routed_layers: Sequence[int], seq_len: int) -> DenseCosts:
    """Return the costs of the dense and of the cheap model, from which B follows."""
    return _dense_costs(config, tuple(routed_layers), seq_len)


@lru_cache(maxsize=16)
def _dense_costs(config: DecoderConfig, routed_layers: tuple[int, ...], seq_len: int) -> DenseCosts:
    # A cell asks for them about five times.
    ledger = _dense_ledger(config, routed_layers, seq_len)
    return DenseCosts(full=_even_cost(ledger, (0.0, 1.0)), cheap=_even_cost(ledger, (1.0, 0.0)))


def training_target(
    config: DecoderConfig, routed_layers: Sequence[int], seq_len: int, rho: float, frozen: bool
) -> float:
    """Return the FLOPs of training on one token at B, forward and backward.

    It is the cost of a hard choice without work of its own. If backbone and paths are frozen, only
    the gradient of the activations flows back, as far as the first router.
    """
    if not frozen:
        return 3 * dense_costs(config, routed_layers, seq_len).at(rho)
    ledger = _dense_ledger(config, routed_layers, seq_len)
    return sum(
        _even_cost(prices, (1 - rho, rho)) for prices in (ledger, ledger.backward(routed_layers[0]))
    )


def _even_cost(ledger: Ledger, shares: Sequence[float]) -> float:
    """Return the FLOPs per token with the same shares at every site."""
    return ledger.at([shares] * len(ledger.sites))


def _dense_ledger(config: DecoderConfig, routed_layers: Sequence[int], seq_len: int) -> Ledger:
    with torch.device("meta"):
        return Ledger(Decoder(config, {layer: [StandIn()] for layer in routed_layers}), seq_len, {})


def solve(
    stated: Stated,
    ledger_at: Callable[[int], Ledger],
    costs: DenseCosts,
    rho: float,
    layers: tuple[int, ...],
    bracket: bool,
    ffn_width: int,
) -> Solution:
    """Find the router's free size at which the model costs B.

    Args:
        stated: paths and relative shares of the router.
        ledger_at: expert width -> ledger of the model.
        costs: costs of the dense and the cheap model.
        rho: the budget.
        layers: layers in use.
        bracket: whether the row is a bracket. With a base, it ignores the budget and always takes
            one path. Without one, it still gets its width from the budget.
        ffn_width: hidden width of the full FFN. Experts inside a block together cost as much.

    Raises:
        UserError: the budget is out of this router's reach.
    """
    target = costs.at(rho)
    if stated.paths.base is None:
        return _solve_width(stated, ledger_at, costs, rho, layers)
    inner = stated.inside
    # Inside a block, the share of the block is the free size, so the experts' width is given.
    width = round(ffn_width / inner.mean_experts) if inner and inner.paths.base is None else 0
    if bracket:
        even = [_evenly(one) for one in (inner, stated) if one is not None]
        return Solution(target, target, costs.full, 1.0, width, (*even,) * len(layers), layers)
    ledger = ledger_at(width)
    if stated.capacity is None:
        sites, spent = _meet(stated, ledger, target), target
    else:
        mean = fmean(ratio[1] for ratio in stated.ratios)
        sites = sites_at(stated, stated.capacity / mean)
        spent = ledger.at([site.shares for site in _flat(sites)])
    _check_some_token(stated, sites, ledger.seq_len)
    capacities = [layer[-1].capacity for layer in sites]
    capacity = fmean(capacities) if len(set(capacities)) > 1 else capacities[0]
    return Solution(spent, target, costs.full, capacity, width, _flat(sites), layers)


def _meet(stated: Stated, ledger: Ledger, target: float) -> list[list[SiteShares]]:
    """Find the factor on the relative shares of upgrades at which the model costs B."""

    def cost(factor: float) -> float:
        return ledger.at([site.shares for site in _flat(sites_at(stated, factor))])

    low, high = 0.0, 1.0 / stated.smallest
    least, most = cost(low), cost(high)
    if not least <= target <= most:
        raise UserError(
            f"Router {stated.name!r} cannot meet the budget of {target:,.0f} FLOPs a token: "
            f"its own range is {least:,.0f} to {most:,.0f}. "
            "Choose another --budget, a cheaper router, or layers='every'."
        )
    # The cost of a block is quadratic in its share, so bisect.
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(middle) < target else (low, middle)
    return sites_at(stated, low)


def _check_some_token(stated: Stated, sites: list[list[SiteShares]], seq_len: int) -> None:
    """Refuse a layer that upgrades no token, unless the router says so."""
    for place, layer in enumerate(sites):
        asked = [one for one in (stated.inside, stated) if one is not None]
        for one, site in zip(asked, layer, strict=True):
            if one.paths.base is None or not one.ratios[place][1]:
                continue
            if round(site.shares[1] * seq_len) < 1:
                raise UserError(
                    f"Router {stated.name!r} is left with a capacity of {site.shares[1]:.4f}, no "
                    f"token of a sequence of {seq_len}: it would train nothing. Raise --budget or "
                    "seq_len, or choose a cheaper router."
                )


def _solve_width(
    stated: Stated,
    ledger_at: Callable[[int], Ledger],
    costs: DenseCosts,
    rho: float,
    layers: tuple[int, ...],
) -> Solution:
    """Solve the expert width, to the nearest unit. The cost is linear in it: two points suffice."""
    # Shares of experts do not depend on their width, so they are known first.
    target, sites = costs.at(rho), _flat(sites_at(stated, 1.0))
    shares = [site.shares for site in sites]
    first, second = ledger_at(1).at(shares), ledger_at(2).at(shares)
    width = round(1 + (target - first) / (second - first))
    if width < 1:
        raise UserError(
            f"Router {stated.name!r} cannot meet the budget of {target:,.0f} FLOPs a token: "
            f"experts of width 1 cost {first:,.0f}. Raise --budget."
        )
    return Solution(target, target, costs.full, 1.0, width, sites, layers)


def _evenly(stated: Stated) -> SiteShares:
    """Return the shares of a bracket, which always takes one path."""
    count = len(stated.paths.names)
    return SiteShares((1.0 / count,) * count, 1.0, stated.mean_experts)


def _flat(sites: list[list[SiteShares]]) -> tuple[SiteShares, ...]:
    return tuple(site for layer in sites for site in layer)
