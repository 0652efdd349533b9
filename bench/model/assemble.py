"""From a row of a suite to a model.

Build routers where they belong, price them, solve the free size for the budget.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from bench.backbone.decoder import Decoder, DecoderConfig
from bench.backbone.passes import ask
from bench.config.row import RouterTraining
from bench.errors import UserError, let_through, located
from bench.flops.budget import Solution, StandIn, dense_costs, solve
from bench.flops.counter import OpCounter, UncountedOp, count
from bench.flops.ledger import Ledger
from bench.flops.meter import Meter
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
from bench.routing.registry import Entry, RouterCard

CAPACITY_GUESS = 0.5
"""Capacity and expert width under which a router is priced, before they are known."""


@dataclass(frozen=True)
class Blueprint:
    """What a suite says about a model, before a seed.

    Attributes:
        entry: the registered router.
        options: its options.
        decoder: sizes of the decoder.
        routed_layers: layers that the suite routes; the router may use every other of them.
        seq_len: tokens a sequence.
        budget: rho.
        num_domains: domain tags in the data.
        bracket: whether the router ignores the budget on purpose.
        training: how routers are trained; what of it is part of the model is put there.
        card: what is known of the router with these options, if someone has asked before.
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
        """The router's card; made now unless it was given."""
        return self.card or self.entry.describe(self.options)


@dataclass
class Model:
    """An assembled model and its prices.

    Attributes:
        decoder: the model, drawn.
        ledger: prices of training.
        evaluation_ledger: prices of causal evaluation, where a router may cost something else.
        solution: the budget and the sizes solved from it.
        losses: for each router, its auxiliary losses with the weights that count.
        frozen: whether backbone and paths stand still, and routers alone are trained.
    """

    decoder: Decoder
    ledger: Ledger
    evaluation_ledger: Ledger
    solution: Solution
    losses: tuple[Mapping[str, LossTerm], ...]
    frozen: bool = False

    def meter(self, seed: int) -> Meter:
        """Make the meter of a run of this model."""
        ledgers: dict[Selection, Ledger] = {"topk": self.ledger, "causal": self.evaluation_ledger}
        return Meter(self.decoder.routers, ledgers, seed)

    def active_parameters(self, shares: Sequence[Sequence[float]] | None = None) -> float:
        """Parameters that a token meets on average.

        Args:
            shares: for each routed site the share of tokens on each path; by default those at which
                B is met.
        """
        total = float(sum(p.numel() for p in self.decoder.parameters()))
        for site, share in zip(
            self.ledger.sites,
            shares or [self.solution.shares] * len(self.ledger.sites),
            strict=True,
        ):
            # a product of an m x n matrix with one vector costs 2mn: parameters are half the FLOPs
            # of a token
            total -= (
                sum((1 - part) * cost for part, cost in zip(share, site.token, strict=True)) / 2
            )
        return total


def layers_used(router: Router | RouterCard, routed_layers: Sequence[int]) -> tuple[int, ...]:
    """The routed layers that a router makes use of."""
    return tuple(routed_layers) if router.layers == "every" else tuple(routed_layers)[::2]


# torch's modules draw from the global generator when they are made
@torch.random.fork_rng(devices=[])
def assemble(blueprint: Blueprint, seed: int, router_seed: int = 0) -> Model:
    """Build the model of one seed at the budget.

    Args:
        blueprint: what to build.
        seed: of the backbone and the paths.
        router_seed: shifts the seed of the routers' own parameters and noise.

    Raises:
        UserError: no size of this router meets the budget, or its cost cannot be counted.
    """
    used = layers_used(blueprint.described, blueprint.routed_layers)
    solution, prices = solve_size(blueprint)
    built = {
        layer: _build_router(blueprint, layer, solution.capacity, seed, router_seed)
        for layer in used
    }
    routers = {layer: [router] for layer, (router, _) in built.items()}
    decoder = Decoder(blueprint.decoder, routers, solution.expert_width)
    decoder.reset(seed)
    training, evaluation = (
        Ledger(decoder, blueprint.seq_len, prices[selection]) for selection in ("topk", "causal")
    )
    training.charge("router", "build", sum(flops for _, flops in built.values()))
    losses = tuple(resolve_losses(router, blueprint.training) for router in decoder.routers)
    return Model(decoder, training, evaluation, solution, losses)


@torch.random.fork_rng(devices=[])
def solve_size(blueprint: Blueprint) -> tuple[Solution, dict[Selection, dict[int, float]]]:
    """Find the size at which a model meets the budget, without building the backbone.

    Returns:
        The solution, and FLOPs a token of each layer's router in training and in evaluation.

    Raises:
        UserError: no size of this router meets the budget, or its cost cannot be counted.
    """
    card = blueprint.described
    used = layers_used(card, blueprint.routed_layers)
    prices = _router_prices(blueprint, used)
    stand_in = StandIn(card.paths, card.mean_experts)

    def ledger_at(expert_width: int) -> Ledger:
        with torch.device("meta"):
            stand_ins = {layer: [StandIn(card.paths)] for layer in used}
            decoder = Decoder(blueprint.decoder, stand_ins, expert_width)
        return Ledger(decoder, blueprint.seq_len, prices["causal"])

    costs = dense_costs(blueprint.decoder, blueprint.routed_layers, blueprint.seq_len)
    bracket, name = blueprint.bracket, blueprint.entry.name
    solution = solve(stand_in, ledger_at, costs, blueprint.budget, used, bracket, name)
    return solution, prices


def router_spec(
    blueprint: Blueprint, router: Router, layer: int, capacity: float, seed: int
) -> RouterSpec:
    """What the harness decides for the router of one layer."""
    return RouterSpec(
        d_model=blueprint.decoder.d_model,
        paths=router.paths,
        capacity=capacity,
        mean_experts=router.mean_experts,
        layer=layer,
        num_layers=blueprint.decoder.num_layers,
        vocab_size=blueprint.decoder.vocab_size,
        max_seq_len=blueprint.decoder.max_seq_len,
        num_domains=blueprint.num_domains,
        seed=seed,
        routed_layers=layers_used(router, blueprint.routed_layers),
    )


def _build_router(
    blueprint: Blueprint, layer: int, capacity: float, seed: int, router_seed: int
) -> tuple[Router, float]:
    """Make and build a router with a random stream of its own, whatever generator its constructor
    draws from.

    Returns:
        The router, and the FLOPs that making it took.
    """
    own = key(seed, "router", layer, router_seed)
    with torch.random.fork_rng(devices=[]), OpCounter() as counter:
        torch.manual_seed(own >> 1)
        router = blueprint.entry.make(dict(blueprint.options))
        router.build(router_spec(blueprint, router, layer, capacity, own >> 1))
        equip(router, blueprint.training, blueprint.entry.name)
    return router, counter.total


def _router_prices(blueprint: Blueprint, used: Sequence[int]) -> dict[Selection, dict[int, float]]:
    """FLOPs a token of each layer's router, in training and in evaluation, by running it under the
    counter.
    """
    prices: dict[Selection, dict[int, float]] = {"topk": {}, "causal": {}}
    try:
        routers = {
            layer: _build_router(blueprint, layer, CAPACITY_GUESS, 0, 0)[0] for layer in used
        }
        for selection, found in prices.items():
            previous: LayerTrace | None = None
            for layer, router in routers.items():
                inputs = replace(
                    sample_input(blueprint, router), selection=selection, previous=previous
                )
                plans: list[RoutingPlan] = []
                with torch.no_grad():
                    found[layer] = (
                        count(lambda: plans.append(ask(router, inputs))).total / blueprint.seq_len  # noqa: B023
                    )
                if selection == "topk":
                    check_honoured(router, plans[0], blueprint.training, blueprint.entry.name)
                updates = dict.fromkeys(router.paths.names, (None, inputs.hidden.flatten(0, 1)))
                previous = LayerTrace(
                    layer, router.paths, inputs, plans[0], inputs.hidden, {**updates}
                )
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


def sample_input(blueprint: Blueprint, router: Router, batch: int = 1) -> RouterInput:
    """A random input of the shape that the router will see."""
    noise = generator(0, "sample_input")
    shape = (batch, blueprint.seq_len)
    tokens = torch.randint(blueprint.decoder.vocab_size, shape, generator=noise)
    return RouterInput(
        hidden=torch.randn(*shape, blueprint.decoder.d_model, generator=noise),
        tokens=tokens,
        positions=torch.arange(blueprint.seq_len).expand(shape),
        tags=torch.zeros_like(tokens) if "tags" in router.needs else None,
        previous=None,
        generator=generator(0, "sample_noise"),
        progress=0.5,
        selection="topk",
        truth=torch.zeros_like(tokens) if "truth" in router.needs else None,
        attention=torch.rand(shape, generator=noise) if "attention" in router.needs else None,
    )
