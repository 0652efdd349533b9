"""The budget: what a token may cost, and the size of each router that costs exactly that.

B = fixed part + rho * full + (1 - rho) * cheap over the routed sites, in active FLOPs a token of
the whole model. A router with a base path gets a capacity, one without gets an expert width, each
solved so that the model costs B with the router's own work included.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from bench.backbone.decoder import Decoder, DecoderConfig
from bench.errors import UserError
from bench.flops.ledger import Ledger
from bench.routing.contract import FFN_GATE, Paths, Router


class StandIn(Router):
    """Stand where a router will, for the sake of its paths; it is never asked."""

    def __init__(self, paths: Paths = FFN_GATE, mean_experts: float = 1.0) -> None:
        super().__init__()
        self.paths, self.mean_experts = paths, mean_experts


@dataclass(frozen=True)
class DenseCosts:
    """Active FLOPs a token of the model with every routed site full, or cheap, and no router
    anywhere.
    """

    full: float
    cheap: float

    def at(self, rho: float) -> float:
        """The budget B at a share rho of full paths."""
        return rho * self.full + (1 - rho) * self.cheap


@dataclass(frozen=True)
class Solution:
    """The budget and what it means for one router.

    Attributes:
        target: B, FLOPs a token.
        dense: FLOPs a token with every routed site full.
        capacity: share of tokens to upgrade; 1.0 where there is no base.
        expert_width: hidden width of an expert; 0 where there are none.
        shares: share of tokens on each path at which B is met.
        layers: routed layers in use.
    """

    target: float
    dense: float
    capacity: float
    expert_width: int
    shares: tuple[float, ...]
    layers: tuple[int, ...]


def dense_costs(config: DecoderConfig, routed_layers: Sequence[int], seq_len: int) -> DenseCosts:
    """Costs of the dense model and of the cheap one, from which B follows."""
    ledger = _dense_ledger(config, routed_layers, seq_len)
    return DenseCosts(full=_cost(ledger, (0.0, 1.0)), cheap=_cost(ledger, (1.0, 0.0)))


def training_target(
    config: DecoderConfig, routed_layers: Sequence[int], seq_len: int, rho: float, frozen: bool
) -> float:
    """FLOPs of training on one token at B: what a hard choice costs that needs no work of its own,
    forward and backward.

    Where backbone and paths are frozen, the gradient of the activations is all that flows back, as
    far as the first router.
    """
    if not frozen:
        return 3 * dense_costs(config, routed_layers, seq_len).at(rho)
    ledger = _dense_ledger(config, routed_layers, seq_len)
    return sum(
        _cost(prices, (1 - rho, rho)) for prices in (ledger, ledger.backward(routed_layers[0]))
    )


def _dense_ledger(config: DecoderConfig, routed_layers: Sequence[int], seq_len: int) -> Ledger:
    with torch.device("meta"):
        return Ledger(Decoder(config, {layer: [StandIn()] for layer in routed_layers}), seq_len, {})


def solve(
    router: Router,
    ledger_at: Callable[[int], Ledger],
    costs: DenseCosts,
    rho: float,
    layers: tuple[int, ...],
    bracket: bool,
    name: str,
) -> Solution:
    """Find the router's free size at which the model costs B.

    Args:
        router: an unbuilt instance or a stand-in, for its paths.
        ledger_at: expert width -> ledger of the model.
        costs: of the dense and the cheap model.
        rho: the budget.
        layers: layers in use.
        bracket: a router with a base leaves the budget alone and takes one path always; one without
            still gets its width from it.
        name: for the error.

    Raises:
        UserError: the budget is out of this router's reach.
    """
    target = costs.at(rho)
    if bracket and router.paths.base is not None:
        return Solution(
            target,
            costs.full,
            1.0,
            0,
            tuple(1.0 / len(router.paths.names) for _ in router.paths.names),
            layers,
        )
    if router.paths.base is None:
        return _solve_width(router, ledger_at, costs, rho, layers, name)
    ledger = ledger_at(0)
    low, high = 0.0, 1.0
    least, most = _cost(ledger, (1.0, 0.0)), _cost(ledger, (0.0, 1.0))
    if not least <= target <= most:
        raise UserError(
            f"Router {name!r} cannot meet the budget of {target:,.0f} FLOPs a token: its own range is {least:,.0f} to {most:,.0f}. "
            "Choose another --budget, a cheaper router, or layers='every'."
        )
    for _ in range(60):  # the cost of a block is quadratic in its share, so bisect
        middle = (low + high) / 2
        low, high = (
            (middle, high) if _cost(ledger, (1 - middle, middle)) < target else (low, middle)
        )
    if round(low * ledger.seq_len) < 1:
        raise UserError(
            f"Router {name!r} is left with a capacity of {low:.4f}, no token of a sequence of "
            f"{ledger.seq_len}: it would train nothing. Raise --budget or seq_len, or choose a "
            "cheaper router."
        )
    return Solution(target, costs.full, low, 0, (1 - low, low), layers)


def _solve_width(
    router: Router,
    ledger_at: Callable[[int], Ledger],
    costs: DenseCosts,
    rho: float,
    layers: tuple[int, ...],
    name: str,
) -> Solution:
    """The cost is linear in the expert width: two points give it, to the nearest single unit."""
    target = costs.at(rho)
    count = len(router.paths.names)
    if not 0 < router.mean_experts <= count:
        raise UserError(
            f"Router {name!r} has mean_experts {router.mean_experts!r}; a token takes more than 0 and at most all {count}."
        )
    shares = (router.mean_experts / count,) * count
    first, second = _cost(ledger_at(1), shares), _cost(ledger_at(2), shares)
    width = round(1 + (target - first) / (second - first))
    if width < 1:
        raise UserError(
            f"Router {name!r} cannot meet the budget of {target:,.0f} FLOPs a token: experts of width 1 cost {first:,.0f}. Raise --budget."
        )
    return Solution(target, costs.full, 1.0, width, shares, layers)


def _cost(ledger: Ledger, shares: Sequence[float]) -> float:
    return (
        ledger.fixed
        + ledger.routers
        + sum(site.at(shares, ledger.seq_len) for site in ledger.sites)
    )
