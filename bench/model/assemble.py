"""Build the model of a row: place its routers, price them, solve the free size for the budget."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from bench.backbone.decoder import Decoder, DecoderConfig
from bench.backbone.memory import PairMemory
from bench.backbone.passes import Decide, ask
from bench.config.row import RouterTraining
from bench.errors import UserError, let_through, located
from bench.flops.budget import Solution, StandIn, dense_costs, solve
from bench.flops.counter import OpCounter, UncountedOp, count
from bench.flops.ledger import Ledger, SiteKey
from bench.flops.meter import Meter
from bench.flops.shares import SiteShares, state
from bench.model.equip import LossTerm, check_honoured, equip, resolve_losses
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
from bench.routing.registry import Entry, RouterCard

CAPACITY_GUESS = 0.5
"""Capacity at which a router is priced, before its real capacity is known."""
Prices = dict[Selection, dict[SiteKey, float]]
"""FLOPs per token of each router, in training and in evaluation."""


@dataclass(frozen=True)
class Blueprint:
    """The part of a suite that defines a model, before a seed.

    Attributes:
        entry: the registered router.
        options: options of the router.
        decoder: sizes of the decoder.
        routed_layers: layers that the suite routes; the router may use every other of them.
        seq_len: tokens per sequence.
        budget: rho.
        num_domains: number of domain tags in the data.
        bracket: whether the router ignores the budget on purpose.
        training: router training options. Those that add modules (noise, bias) are applied here.
        card: facts about the router with these options, if they are known already.
    """

    entry: Entry
    options: Mapping[str, object]
    decoder: DecoderConfig
    routed_layers: tuple[int, ...]
    seq_len: int
    budget: float
    num_domains: int
    bracket: bool
    training: RouterTraining = field(default_factory=RouterTraining)
    card: RouterCard | None = None

    @property
    def described(self) -> RouterCard:
        """Return the router's card; make it unless it was given."""
        return self.card or self.entry.describe(self.options)


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


def layers_used(router: Router | RouterCard, routed_layers: Sequence[int]) -> tuple[int, ...]:
    """Return the routed layers that a router uses."""
    return tuple(routed_layers) if router.layers == "every" else tuple(routed_layers)[::2]


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
    prices = _router_prices(blueprint, used)

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


def _router_prices(blueprint: Blueprint, used: tuple[int, ...]) -> Prices:
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
