"""Checks of how a router comes into being."""

import gc
import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache
from statistics import mean

import torch

from bench.conformance.check import Exempt, demand, rule
from bench.conformance.guard import sealed
from bench.conformance.memory import digest
from bench.conformance.settings import torch_settings
from bench.conformance.subject import SEQ_LEN, Subject
from bench.evaluation.calibrate import calibrate
from bench.flops.budget import dense_costs
from bench.flops.counter import UncountedOp, count
from bench.routing.contract import (
    FFN_GATE,
    AuxLoss,
    OracleRequest,
    Paths,
    Router,
    RouterInput,
    RoutingPlan,
)
from bench.routing.registry import Entry, import_again
from bench.routing.select import gate_plan

KNOWN_NEEDS = {"tags", "truth", "utility", "token_loss", "probe", "attention"}
FIXED_RULE_TRIALS = 8
UNEXPLAINED_SECONDS = 0.1
"""Of processor time, for Python itself: ten times what routers take that only draw parameters."""
SLOWEST = 5e8
"""FLOPs a second of torch at its worst, in small operations."""


@rule(
    "Give every option of __init__ a default, call super().__init__(), and set `paths`.",
    essential=True,
)
def builds_without_arguments(subject: Subject) -> None:
    """Every option of the constructor has a default, so that any router can be built blind."""
    parameters = list(inspect.signature(subject.entry.router.__init__).parameters.values())[1:]
    loose = [
        p.name
        for p in parameters
        if p.default is p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    demand(
        not loose, "keyword options with defaults", f"options without a default: {', '.join(loose)}"
    )
    router = subject.entry.make({})
    paths = getattr(router, "paths", None)
    demand(isinstance(paths, Paths), "`paths` to be a bench.routing.Paths", repr(paths))
    demand(router.layers in ("every", "other"), "layers 'every' or 'other'", repr(router.layers))
    oracle, allows_none, losses = (
        getattr(router, name) for name in ("oracle", "allows_none", "aux_losses")
    )
    demand(
        oracle is None or isinstance(oracle, OracleRequest),
        "oracle None or an OracleRequest",
        repr(oracle),
    )
    demand(isinstance(allows_none, bool), "allows_none True or False", repr(allows_none))
    right = isinstance(losses, dict) and all(isinstance(loss, AuxLoss) for loss in losses.values())
    demand(right, "aux_losses a dict of names and AuxLoss", repr(losses))
    strange = set(router.needs) - KNOWN_NEEDS
    demand(not strange, f"needs among {sorted(KNOWN_NEEDS)}", f"{sorted(strange)}")


@rule(
    "Only do arithmetic in torch: no files, sockets, threads or processes. Tables come from `fit`, randomness from the inputs.",
    essential=True,
)
def no_side_effects(subject: Subject) -> None:
    """Importing, building, training and evaluating touches no file, connection, thread, process or
    global setting of torch.
    """
    _warm_up()
    dtype = torch.get_default_dtype()
    demand(
        dtype is torch.float32,
        "torch's default dtype as it was",
        f"{dtype}, since the plugin was imported",
    )
    before = torch_settings()
    with sealed() as refused:
        for live in (lambda: import_again(subject.entry.router), subject.short_life):
            with suppress(Exception):  # what else goes wrong is the business of later checks
                live()
    demand(not refused, "no file, connection, thread or process", refused[:1])
    changed = [
        f"{name}: {value}" for name, value in torch_settings().items() if value != before[name]
    ]
    demand(not changed, f"torch's settings as they were, {before}", changed[:1])


@cache
def _warm_up() -> None:
    """Let torch import and set up what it puts off until it is needed, which makes folders and
    reads files.
    """
    Subject(Entry("alternate", "control", "", _Alternate)).short_life()


class _Alternate(Router):
    """Upgrades every other token.

    Does nothing that could be mistaken for a side effect of a plugin.
    """

    paths = FFN_GATE

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        """Upgrade odd positions."""
        return gate_plan(inputs.positions % 2 == 1, None)


@rule(
    "Use operations that bench.flops.operations prices; a library call or a custom operation that it does not know cannot be used.",
    essential=True,
)
def every_operation_is_priced(subject: Subject) -> None:
    """The cost of every operation that the router runs is known, so that the budget can be solved
    for it.
    """
    demand(subject.model.solution.target > 0, "a positive budget", subject.model.solution.target)


@rule(
    "Make parameters in `build` and nothing else; what has to be computed from text belongs in `fit`, in torch, which is charged."
)
def construction_is_cheap(subject: Subject) -> None:
    """Importing and making a router costs no more than drawing and orthogonalising its parameters:
    nothing is computed there unpaid.

    Nor does it, or `fit`, compute outside of torch: processor time, too, must be what the counted
    FLOPs explain.
    """
    size = sum(t.numel() for t in subject.build().state_dict().values())
    limit = float(10 * size * subject.blueprint.decoder.d_model + 10_000)

    def make_anew() -> None:
        fresh = replace(subject.entry, router=import_again(subject.entry.router))
        fresh.make(dict(subject.options))
        subject.build()

    spent = _counted("importing and making it", make_anew)
    demand(
        spent <= limit, f"at most {limit:,.0f} FLOPs for {size:,} numbers", f"{spent:,.0f} FLOPs"
    )
    router, statistics = subject.build(), subject.statistics()
    _counted("fit", lambda: router.fit(statistics))


def _counted(what: str, run: Callable[[], object]) -> float:
    """FLOPs of a call, which must explain its processor time."""
    gc.collect()  # a collection of the whole process's garbage is not the router's work
    gc.disable()
    started = time.process_time()
    try:
        spent = count(run).total
    except UncountedOp as error:
        demand(False, f"operations whose cost is known in {what}", error)
        raise
    finally:
        seconds = time.process_time() - started
        gc.enable()
    demand(
        seconds <= UNEXPLAINED_SECONDS + spent / SLOWEST,
        f"{what} to take the time of {spent:,.0f} FLOPs",
        f"{seconds:.2f} s",
    )
    return spent


@rule(
    "Draw parameters with torch's default generator, which the harness seeds; not with `random`, NumPy, the clock or the process id."
)
def same_seed_same_weights(subject: Subject) -> None:
    """Two models of one seed are equal, whatever state the global generators are in."""
    first = {name: digest(value) for name, value in subject.model.decoder.state_dict().items()}
    torch.rand(3)
    second = {
        name: digest(value) for name, value in subject.assemble().decoder.state_dict().items()
    }
    different = sorted(
        name for name in first.keys() | second.keys() if first.get(name) != second.get(name)
    )
    demand(not different, "equal weights", f"different ones in {', '.join(different[:3])}")


@rule(
    "If the router cannot be made to fit, choose another default for `layers` or make it cheaper.",
    waivable=True,
)
def budget_is_met(subject: Subject) -> None:
    """The solved size costs the budget.

    Within 1 %, or half a unit of an expert's width where that is more.
    """
    if subject.is_bracket:
        raise Exempt("a bracket ignores the budget")
    spend, solution = mean(_spends(subject)), subject.model.solution
    costs = dense_costs(subject.blueprint.decoder, subject.blueprint.routed_layers, SEQ_LEN)
    demand(
        abs(costs.at(subject.blueprint.budget) - solution.target) < 1e-6 * solution.target,
        "the budget of the suite",
        solution.target,
    )
    unit = (
        6 * subject.blueprint.decoder.d_model * len(solution.layers) * subject.probe.mean_experts
        if solution.expert_width
        else 0.0
    )
    allowed = max(0.01, 0.5 * unit / solution.target)
    demand(
        abs(spend - 1) <= allowed,
        f"1 ± {allowed:.4f} of B spent in causal evaluation",
        f"{spend:.4f} of B",
    )


def _spends(subject: Subject) -> Iterator[float]:
    """What causal evaluation spends of B, once; or in several trials where a fixed rule upgrades
    and no threshold can be set.

    Such a rule, a hash say, meets the budget in the mean over texts; the few pairs of position and
    token id of one small text are off by half a percent as often as not.
    """
    fixed_rule = subject.probe.paths.base is not None and all(
        router.knob is None for router in subject.model.decoder.routers
    )
    for trial in range(FIXED_RULE_TRIALS if fixed_rule else 1):
        there = replace(subject, seed=subject.seed + trial)
        model = there.assemble()
        there.train(
            model
            # untrained, hidden states are those of the few token ids, and no threshold can split them
            # finely
        )
        yield calibrate(model, there.windows(48), 1.0)
