"""Change plans for the forks of a pass: impose a path on some tokens, or keep some sequences."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bench.backbone.passes import History, Pass
from bench.routing.contract import RoutingPlan


def takes_upgrade(plan: RoutingPlan) -> Bool[Tensor, "batch seq"]:
    """Return whether each token takes the upgrade.

    For a token that runs both paths, the larger weight decides.
    """
    upgrade = plan.mask[..., 1]
    if plan.weight is None:
        return upgrade
    return upgrade & (~plan.mask[..., 0] | (plan.weight[..., 1] >= plan.weight[..., 0]))


def imposed(
    plan: RoutingPlan, upgraded: Bool[Tensor, "batch seq"], where: Bool[Tensor, "batch seq"]
) -> RoutingPlan:
    """Return a plan with one path imposed on some tokens.

    The path keeps its weight in the plan. It gets weight 1, as in evaluation, if the plan mixes
    both paths or gives the path no weight.
    """
    mask = torch.where(where.unsqueeze(-1), torch.stack((~upgraded, upgraded), dim=-1), plan.mask)
    return replace(plan, mask=mask, weight=_hardened(plan, where), counts=None)


def all_upgraded(plan: RoutingPlan) -> RoutingPlan:
    """Return a plan with the upgrade imposed on every token."""
    every = torch.ones_like(plan.mask[..., 0])
    counts = (0, every.shape[1])
    return replace(
        plan,
        mask=torch.stack((~every, every), dim=-1),
        weight=_hardened(plan, every),
        counts=counts,
    )


def of_sequences(run: Pass, site: int, index: Int[Tensor, " kept"]) -> Pass:
    """Return the pass restricted to some sequences, with the parts that a fork at a site needs."""

    def kept(value: Tensor | None) -> Tensor | None:
        return None if value is None else value[index]

    history, trace, plan = run.history, run.traces[site], run.traces[site].plan
    assert history is not None
    # Extras that are not of the batch, such as a scalar, cannot be cut and are left out.
    extras = {
        name: value[index]
        for name, value in plan.extras.items()
        if value.dim() and len(value) == len(run.tokens)
    }
    part = replace(
        plan,
        mask=plan.mask[index],
        weight=kept(plan.weight),
        scores=kept(plan.scores),
        extras=extras,
    )
    traces = list(run.traces)
    traces[site] = replace(trace, plan=part)
    return replace(
        run,
        tokens=run.tokens[index],
        positions=run.positions[index],
        tags=kept(run.tags),
        truth=kept(run.truth),
        traces=traces,
        counts=[],
        history=History(
            [hidden[index] for hidden in history.entering],
            history.noise,
            [kept(one) for one in history.attention],
        ),
    )


def _hardened(
    plan: RoutingPlan, where: Bool[Tensor, "batch seq"]
) -> Float[Tensor, "batch seq path"] | None:
    """Return the weights, with those of the imposed tokens as for a chosen path.

    A probing router states them in `extras["factor"]`.
    """
    if plan.weight is None:
        return None
    # A probing router runs paths at weight 0 and keeps their real weights apart.
    if (factor := plan.extras.get("factor")) is not None:
        return torch.where(where.unsqueeze(-1), factor, plan.weight)
    soft = plan.mask.all(-1, keepdim=True) | (plan.weight == 0)
    return torch.where(where.unsqueeze(-1) & soft, 1.0, plan.weight)
