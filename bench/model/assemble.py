"""Build the model of a row: place its routers, solve the free size for the budget, and price it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from bench.backbone.decoder import Decoder
from bench.backbone.memory import PairMemory
from bench.flops.budget import Solution, StandIn, dense_costs, solve
from bench.flops.ledger import Ledger
from bench.flops.meter import Meter
from bench.flops.shares import state
from bench.model.blueprint import Blueprint, layers_used
from bench.model.build_routers import Prices, build_routers, router_prices
from bench.model.equip import LossTerm, resolve_losses
from bench.routing.contract import Router, Selection
from bench.routing.inner_router import inside_of


@dataclass
class Model:
    """An assembled model and its prices.

    Attributes:
        decoder: the model with its initial weights.
        ledger: prices of training.
        evaluation_ledger: prices of causal evaluation, where a router may have another cost.
        solution: the budget and the sizes solved from it.
        losses: for each router, its auxiliary losses with their weights.
        frozen: whether backbone and paths are frozen and only routers are trained.
    """

    decoder: Decoder
    ledger: Ledger
    evaluation_ledger: Ledger
    solution: Solution
    losses: tuple[Mapping[str, LossTerm], ...]
    frozen: bool = False

    def meter(self, seed: int) -> Meter:
        """Return a new meter for a run of this model."""
        ledgers: dict[Selection, Ledger] = {"topk": self.ledger, "causal": self.evaluation_ledger}
        return Meter(self.decoder.routers, ledgers, seed)

    def active_parameters(self, shares: Sequence[Sequence[float]] | None = None) -> float:
        """Return the number of parameters that a token uses on average.

        Args:
            shares: for each routed site the share of tokens on each path; by default the shares
                that meet B.
        """
        # Begin with all parameters, and take away the share of each path that tokens skip.
        total = float(sum(p.numel() for p in self.decoder.parameters()))
        total -= sum(m.unread for m in self.decoder.modules() if isinstance(m, PairMemory))
        for site, share in zip(
            self.ledger.sites,
            shares or self.solution.shares,
            strict=True,
        ):
            # The product of an m x n matrix with one vector costs 2mn FLOPs, so the parameters of a
            # path are half its FLOPs per token.
            total -= (
                sum((1 - part) * cost for part, cost in zip(share, site.token, strict=True)) / 2
            )
        return total


# Modules of torch draw from the global generator when they are made.
@torch.random.fork_rng(devices=[])
def assemble(blueprint: Blueprint, seed: int, router_seed: int = 0) -> Model:
    """Build the model of one seed at the budget.

    Args:
        blueprint: the model to build.
        seed: seed of the backbone and the paths.
        router_seed: shifts the seed of the routers' own parameters and noise.

    Raises:
        UserError: no size of this router meets the budget, or its cost cannot be counted.
    """
    used = layers_used(blueprint.described, blueprint.routed_layers)
    solution, prices = solve_size(blueprint)
    # Routers are built first, because the decoder holds them and draws its own weights by name.
    built = {
        layer: build_routers(blueprint, layer, used, solution.of_layer(layer), seed, router_seed)
        for layer in used
    }
    routers = {layer: made for layer, (made, _) in built.items()}
    decoder = Decoder(blueprint.decoder, routers, solution.expert_width)
    decoder.reset(seed)
    training, evaluation = (
        Ledger(decoder, blueprint.seq_len, prices[selection]) for selection in ("topk", "causal")
    )
    # Making a router costs FLOPs too, for example for an orthogonal matrix.
    training.charge("router", "build", sum(flops for _, flops in built.values()))
    losses = tuple(resolve_losses(router, blueprint.training) for router in decoder.routers)
    return Model(decoder, training, evaluation, solution, losses)


@torch.random.fork_rng(devices=[])
def solve_size(blueprint: Blueprint) -> tuple[Solution, Prices]:
    """Find the size at which a model meets the budget, without building the backbone.

    Returns:
        The solution, and the FLOPs per token of each router in training and in evaluation.

    Raises:
        UserError: no size of this router meets the budget, or its cost cannot be counted.
    """
    name = blueprint.entry.name
    used = layers_used(blueprint.described, blueprint.routed_layers)
    router = blueprint.entry.make(dict(blueprint.options))
    inner = inside_of(router, name)
    stated = state(router, inner, len(used), name)
    # Routers cost FLOPs themselves, so they are priced before the rest is divided.
    prices = router_prices(blueprint, used)

    # The solver tries widths: a decoder of shapes alone has the costs of each.
    def ledger_at(expert_width: int) -> Ledger:
        decoder = shapes_of(blueprint, used, [inner, router], expert_width)
        return Ledger(decoder, blueprint.seq_len, prices["causal"])

    config = blueprint.decoder
    costs = dense_costs(config, blueprint.routed_layers, blueprint.seq_len)
    solution = solve(
        stated, ledger_at, costs, blueprint.budget, used, blueprint.bracket, config.ffn_width
    )
    return solution, prices


def shapes_of(
    blueprint: Blueprint,
    used: Sequence[int],
    routers: Sequence[Router | None],
    expert_width: int,
) -> Decoder:
    """Return a decoder without weights, with placeholders for the routers."""
    # Costs depend on shapes alone, so the decoder needs no memory.
    with torch.device("meta"):
        paths = [one.paths for one in routers if one is not None]
        stand_ins = {layer: [StandIn(each) for each in paths] for layer in used}
        return Decoder(blueprint.decoder, stand_ins, expert_width)
