"""Size and price a model without building its weights, to plan runs of it."""

from dataclasses import dataclass

import torch

from bench.flops.budget import Solution
from bench.flops.ledger import Ledger
from bench.model.assemble import Blueprint, build_routers, shapes_of, solve_size
from bench.routing.contract import Router
from bench.routing.inside import inside_of


@dataclass(frozen=True)
class Sketch:
    """The sizes and prices of a model that is not built.

    Attributes:
        solution: the budget and the sizes solved from it.
        ledger: prices of training.
        parameters: number of parameters, routers included.
        trains_dense: whether training runs every path.
        learns: whether the routers learn.
    """

    solution: Solution
    ledger: Ledger
    parameters: int
    trains_dense: bool
    learns: bool


@torch.random.fork_rng(devices=[])
def sketch(blueprint: Blueprint) -> Sketch:
    """Return the sizes and prices of a model, without weights of the backbone.

    Raises:
        UserError: no size of this router meets the budget, or its cost cannot be counted.
    """
    solution, prices = solve_size(blueprint)
    used = solution.layers
    outer = blueprint.entry.make(dict(blueprint.options))
    inner = inside_of(outer, blueprint.entry.name)
    decoder = shapes_of(blueprint, used, [inner, outer], solution.expert_width)
    routers = [
        router
        for layer in used
        for router in build_routers(blueprint, layer, used, solution.of_layer(layer), 0, 0)[0]
    ]
    own = sum(p.numel() for router in routers for p in router.parameters())
    return Sketch(
        solution,
        Ledger(decoder, blueprint.seq_len, prices["topk"]),
        own + sum(p.numel() for p in decoder.parameters()),
        any(router.trains_dense for router in routers),
        any(type(one).after_step is not Router.after_step for one in routers) or own > 0,
    )
