"""Size and price a model without building its weights, to plan runs of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from bench.flops.budget import Solution
from bench.flops.ledger import Ledger
from bench.model.assemble import shapes_of, solve_size
from bench.model.blueprint import Blueprint
from bench.model.build_routers import build_routers, first_plans
from bench.routing.contract import Router
from bench.routing.inner_router import inside_of


@dataclass(frozen=True)
class Sketch:
    """The sizes and prices of a model that is not built.

    Attributes:
        solution: the budget and the sizes solved from it.
        ledger: prices of training.
        parameters: number of parameters, routers included.
        shares: for each routed site, share of the tokens that training runs on each path.
        learns: whether the routers learn.
    """

    solution: Solution
    ledger: Ledger
    parameters: int
    shares: tuple[tuple[float, ...], ...]
    learns: bool


@torch.random.fork_rng(devices=[])
def sketch(blueprint: Blueprint) -> Sketch:
    """Return the sizes and prices of a model, without weights of the backbone.

    Raises:
        UserError: no size of this router meets the budget, or its cost cannot be counted.
    """
    solution, prices = solve_size(blueprint)
    used = solution.layers
    # All layers have the same kind of router, so one of each is enough for shapes.
    outer = blueprint.entry.make(dict(blueprint.options))
    inner = inside_of(outer, blueprint.entry.name)
    decoder = shapes_of(blueprint, used, [inner, outer], solution.expert_width)
    layers = [
        build_routers(blueprint, layer, used, solution.of_layer(layer), 0, 0)[0] for layer in used
    ]
    routers = [router for layer in layers for router in layer]
    # The decoder has placeholders for routers, so their parameters are added.
    own = sum(p.numel() for router in routers for p in router.parameters())
    return Sketch(
        solution,
        Ledger(decoder, blueprint.seq_len, prices["topk"]),
        own + sum(p.numel() for p in decoder.parameters()),
        _trained_shares(blueprint, solution, layers),
        any(type(one).after_step is not Router.after_step for one in routers) or own > 0,
    )


def _trained_shares(
    blueprint: Blueprint, solution: Solution, layers: Sequence[Sequence[Router]]
) -> tuple[tuple[float, ...], ...]:
    """Return the shares of the paths in training, which may differ from those at the budget."""
    dense = any(router.trains_dense for layer in layers for router in layer)
    if not (dense or blueprint.bracket):
        return solution.shares
    # A bracket always takes one path, and a relaxed gate takes all: their plans have it.
    with torch.no_grad():
        plans = [plan for _, _, plan in first_plans(blueprint, layers)]
    return tuple(tuple(plan.mask.float().mean((0, 1)).tolist()) for plan in plans)
