"""Build the routers of a row outside any model, and price them on random inputs."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from bench.backbone.passes import Decide, ask
from bench.errors import UserError, let_through, located
from bench.flops.counter import OpCounter, UncountedOp, count
from bench.flops.ledger import SiteKey
from bench.flops.shares import SiteShares
from bench.model.blueprint import Blueprint
from bench.model.equip import check_honoured, equip
from bench.rng import generator, key
from bench.routing.contract import (
    LayerTrace,
    Router,
    RouterInput,
    RouterSpec,
    RoutingPlan,
    Selection,
)
from bench.routing.inner_router import inside_of

CAPACITY_GUESS = 0.5
"""Capacity at which a router is priced, before its real capacity is known."""
Prices = dict[Selection, dict[SiteKey, float]]
"""FLOPs per token of each router, in training and in evaluation."""


def build_routers(
    blueprint: Blueprint,
    layer: int,
    used: tuple[int, ...],
    sites: Sequence[SiteShares] | None,
    seed: int,
    router_seed: int,
) -> tuple[list[Router], float]:
    """Make and build the routers of one layer, each with its own random stream.

    Returns:
        The routers in the order of their traces, and the FLOPs of making them.
    """
    entry = blueprint.entry

    def finish(router: Router, site: SiteShares | None, stream: int) -> Router:
        router.build(router_spec(blueprint, router, layer, used, site, stream))
        equip(router, blueprint.training, entry.name)
        return router

    own, inner_own = (
        key(seed, "router", layer, router_seed, *part) >> 1 for part in ((), ("inside",))
    )
    # A constructor may draw from the global generator, so that one is seeded for each router.
    with torch.random.fork_rng(devices=[]), OpCounter() as counter:
        torch.manual_seed(own)
        outer = entry.make(dict(blueprint.options))
        inner = inside_of(outer, entry.name)
        made = [finish(outer, sites[-1] if sites else None, own)]
        if inner is not None:
            torch.manual_seed(inner_own)
            made.insert(0, finish(inner, sites[0] if sites else None, inner_own))
    return made, counter.total


def router_spec(
    blueprint: Blueprint,
    router: Router,
    layer: int,
    used: tuple[int, ...],
    site: SiteShares | None,
    seed: int,
) -> RouterSpec:
    """Return the sizes that the harness fixes for a router of one layer.

    Args:
        blueprint: the model.
        router: the unbuilt router.
        layer: index of the layer.
        used: the layers that the row routes.
        site: the shares of the router's site; None before they are known.
        seed: seed of the router.
    """
    return RouterSpec(
        d_model=blueprint.decoder.d_model,
        paths=router.paths,
        capacity=CAPACITY_GUESS if site is None else site.capacity,
        mean_experts=router.mean_experts if site is None else site.mean_experts,
        layer=layer,
        num_layers=blueprint.decoder.num_layers,
        vocab_size=blueprint.decoder.vocab_size,
        max_seq_len=blueprint.decoder.max_seq_len,
        num_domains=blueprint.num_domains,
        seed=seed,
        routed_layers=used,
    )


def router_prices(blueprint: Blueprint, used: tuple[int, ...]) -> Prices:
    """Return the FLOPs per token of each router, by running it under the counter.

    Training ("topk") and evaluation ("causal") are priced apart.
    """
    prices: Prices = {"topk": {}, "causal": {}}
    try:
        routers = [build_routers(blueprint, layer, used, None, 0, 0)[0] for layer in used]
        for selection, found in prices.items():

            def priced(router: Router, inputs: RouterInput) -> RoutingPlan:
                plans: list[RoutingPlan] = []
                spent = count(lambda: plans.append(ask(router, inputs))).total
                site = (router.spec.layer, router.paths.site)
                found[site] = spent / blueprint.seq_len  # noqa: B023
                return plans[0]

            with torch.no_grad():
                for router, _, plan in first_plans(blueprint, routers, priced, selection=selection):
                    if selection == "topk":
                        check_honoured(router, plan, blueprint.training, blueprint.entry.name)
    except UserError:
        raise
    except UncountedOp as error:
        raise UserError(f"Router {blueprint.entry.name!r} cannot be priced: {error}") from error
    except BaseException as error:
        let_through(error)
        raise UserError(
            f"Router {blueprint.entry.name!r} fails when it is asked for a plan: {located(error)}."
        ) from error
    return prices


def first_plans(
    blueprint: Blueprint,
    routers: Sequence[Sequence[Router]],
    decide: Decide = ask,
    batch: int = 1,
    **changes: Any,
) -> Iterator[tuple[Router, RouterInput, RoutingPlan]]:
    """Ask the routers of all layers for plans on random inputs, outside of any model.

    Args:
        blueprint: the sizes.
        routers: the routers of each layer, in the order of their traces.
        decide: asks a router for a plan.
        batch: number of sequences.
        changes: fields of the inputs to replace.
    """
    previous: LayerTrace | None = None
    for layer in routers:
        for router in layer:
            inside = router is not layer[-1]
            inputs = replace(sample_input(blueprint, router, batch), **changes)
            inputs = inputs if inside else replace(inputs, previous=previous)
            plan = decide(router, inputs)
            yield router, inputs, plan
            if not inside:
                # The paths do not run, so the hidden state replaces their updates.
                updates = dict.fromkeys(router.paths.names, (None, inputs.hidden.flatten(0, 1)))
                place, paths = router.spec.layer, router.paths
                previous = LayerTrace(place, paths, inputs, plan, inputs.hidden, {**updates})


def sample_input(blueprint: Blueprint, router: Router, batch: int = 1) -> RouterInput:
    """Return a random input of the shape that the router will see."""
    noise = generator(0, "sample_input")
    shape = (batch, blueprint.seq_len)
    tokens = torch.randint(blueprint.decoder.vocab_size, shape, generator=noise)
    hidden = torch.randn(*shape, blueprint.decoder.d_model, generator=noise)
    return RouterInput(
        hidden=hidden,
        tokens=tokens,
        positions=torch.arange(blueprint.seq_len).expand(shape),
        # Only declared needs are given, as in training.
        tags=torch.zeros_like(tokens) if "tags" in router.needs else None,
        previous=None,
        generator=generator(0, "sample_noise"),
        progress=0.5,
        selection="topk",
        truth=torch.zeros_like(tokens) if "truth" in router.needs else None,
        attention=torch.rand(shape, generator=noise) if "attention" in router.needs else None,
        received=torch.rand(shape, generator=noise) if "received" in router.needs else None,
        stream=hidden if "stream" in router.needs else None,
    )
