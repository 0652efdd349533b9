"""Compare the route of a trained model with other routes of equal cost.

The weights stay. In a sampled route, each token takes the plan of another token of its sequence, so
every path runs as often as before. Later routers do not answer to the change. If a sampled route
has a lower loss, the router has missed that much (the idea of arXiv:2605.07260). If sampled routes
have the same loss, the choice does not matter.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bench.backbone.passes import Decide, ask
from bench.data import Windows
from bench.evaluation.evaluate import evaluate
from bench.model.assemble import Model
from bench.record import OtherRoutes
from bench.rng import generator
from bench.routing.contract import Router, RouterInput, RoutingPlan
from bench.routing.paths import Paths, Site

SAMPLES = 8
"""Number of sampled routes."""
FRAGILE = 0.1
"""A token is fragile if half of the sampled routes raise its loss by more, in nats."""


def other_routes(
    model: Model,
    windows: Windows,
    batch_size: int,
    seed: int,
    dtype: torch.dtype,
) -> OtherRoutes | None:
    """Return the losses of sampled routes, and of each token's second choice of an expert.

    None without a choice among tokens: no router, one route for all tokens, merged experts, or
    two routers in a layer.

    Args:
        model: the trained model, with its knobs set.
        windows: windows to evaluate, a part of the validation split.
        batch_size: windows per pass.
        seed: seed of the sampled routes.
        dtype: precision of matrix products.
    """
    if not _exchangeable(model):
        return None
    plans: list[tuple[RoutingPlan, Router]] = []

    def note(router: Router, inputs: RouterInput) -> RoutingPlan:
        plans.append((plan := ask(router, inputs), router))
        return plan

    def nats(decide: Decide) -> Float[np.ndarray, "window seq"]:
        return evaluate(model, windows, batch_size, dtype, decide=decide).nats

    def instead(change: Callable[[RoutingPlan, Router], RoutingPlan]) -> Decide:
        # The plans come from the own route: later routers do not answer to a changed stream.
        made = iter([change(*one) for one in plans])
        return lambda router, inputs: next(made)

    own = nats(note)
    if all(bool((plan.mask == plan.mask[:1, :1]).all()) for plan, _ in plans):
        return None
    draws = generator(seed, "other-routes")
    sampled = [nats(instead(lambda plan, _: exchanged(plan, draws))) for _ in range(SAMPLES)]
    second = None
    if all(plan.scores is not None and _has_second(router) for plan, router in plans):
        second = nats(instead(lambda plan, router: second_choice(plan, router.paths)))
    return summary(own, np.stack(sampled), None if second is None else float(second.mean()))


def _exchangeable(model: Model) -> bool:
    """Return whether each layer has at most one router, and none merges experts."""
    routers = model.decoder.routers
    layers = [site.layer for site in model.evaluation_ledger.sites]
    # Two routers in a layer choose together: one plan alone cannot be exchanged.
    one_each = len(set(layers)) == len(layers)
    return bool(routers) and one_each and not any(r.paths.segment for r in routers)


def summary(
    own: Float[np.ndarray, "window seq"],
    sampled: Float[np.ndarray, "sample window seq"],
    second: float | None,
) -> OtherRoutes:
    """Compare the loss of each token on its own route with that on sampled routes."""
    by_window = sampled.mean(-1)
    # The own route is one of those to choose from, so regret is never below 0.
    best = np.minimum(by_window.min(0), own.mean(-1))
    worse = sampled > own + FRAGILE
    return OtherRoutes(
        samples=len(sampled),
        own=float(own.mean()),
        sampled=float(sampled.mean()),
        regret=float((own.mean(-1) - best).mean()),
        fragile=float((worse.mean(0) >= 0.5).mean()),
        second=second,
    )


def exchanged(plan: RoutingPlan, draws: torch.Generator) -> RoutingPlan:
    """Return a plan in which each token has the mask and weight of another one of its sequence."""
    batch, seq, paths = plan.mask.shape
    order = torch.rand(batch, seq, generator=draws).argsort(-1).to(plan.mask.device)
    index = order.unsqueeze(-1).expand(-1, -1, paths)
    return replace(
        plan,
        mask=plan.mask.gather(1, index),
        weight=None if plan.weight is None else plan.weight.gather(1, index),
        choice=None if plan.choice is None else plan.choice.gather(1, index),
    )


def second_choice(plan: RoutingPlan, paths: Paths) -> RoutingPlan:
    """Replace each token's best expert by the best that it did not choose, with the same weight.

    DeepSeekMoE (arXiv:2401.06066, section 4.5) disables the best experts to measure how well others
    replace them.
    """
    assert plan.scores is not None
    free = torch.zeros(len(paths.names), dtype=torch.bool, device=plan.mask.device)
    free[paths.chosen_experts] = True
    scores = plan.scores.float()
    best = scores.masked_fill(~(plan.mask & free), -torch.inf).max(-1, keepdim=True)
    other = scores.masked_fill(plan.mask | ~free, -torch.inf).max(-1, keepdim=True)
    # A token without an expert, or with all of them, stays as it is.
    moves = best.values.isfinite() & other.values.isfinite()
    mask = _moved(plan.mask, best.indices, other.indices, moves)
    weight = (
        None if plan.weight is None else _moved(plan.weight, best.indices, other.indices, moves)
    )
    return replace(plan, mask=mask, weight=weight, choice=None, counts=None)


def _moved(values: Tensor, source: Tensor, target: Tensor, moves: Bool[Tensor, "..."]) -> Tensor:
    taken = values.gather(-1, source)
    changed = values.scatter(-1, target, taken).scatter(-1, source, torch.zeros_like(taken))
    return torch.where(moves, changed, values)


def _has_second(router: Router) -> bool:
    return router.paths.site is Site.FFN and len(router.paths.experts) > 2
