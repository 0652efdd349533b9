"""Apply the recipe's router options to a router: initial scale, noise, standard losses.

An option acts on a router or is refused in one line; none is silently ignored. Routers without
trainable parameters, such as controls and heuristics, are left unchanged.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from bench.config.row import RouterTraining
from bench.errors import UserError
from bench.model.router_noise import TrainingNoise
from bench.routing.contract import AuxLoss, Router, RoutingPlan
from bench.routing.losses import importance, load, load_balance, router_z

STANDARD_LOSSES: Mapping[str, AuxLoss] = {
    "load_balance": AuxLoss(load_balance, 0.0),
    "importance": AuxLoss(importance, 0.0),
    "load": AuxLoss(load, 0.0),
    "router_z": AuxLoss(router_z, 0.0),
}
"""Losses that a suite can add by name to any learned router with scores, each a sum over layers.

Usual weights are 0.01 (Switch), 0.1 and 0.1 (arXiv:1701.06538) and 0.001 (ST-MoE).
"""

_ADVICE = "Leave it out, or give the row a `training` of its own."


@dataclass(frozen=True)
class LossTerm:
    """An auxiliary loss with its weight in a run."""

    weight: float
    loss: AuxLoss


def resolve_losses(router: Router, options: RouterTraining) -> dict[str, LossTerm]:
    """Return the auxiliary losses of a built router with a weight, in the order of their sum.

    The recipe's weight, by name, comes before the loss's own. A learned router may also have the
    standard losses.
    """
    standard = STANDARD_LOSSES if is_trained(router) else {}
    known = router.aux_losses | {
        name: loss for name, loss in standard.items() if name not in router.aux_losses
    }
    terms = {
        name: LossTerm(options.losses.get(name, loss.weight), loss) for name, loss in known.items()
    }
    return {name: term for name, term in terms.items() if term.weight}


def is_trained(router: Router) -> bool:
    """Return whether a router has trainable parameters."""
    return any(parameter.requires_grad for parameter in router.parameters())


def equip(router: Router, options: RouterTraining, name: str) -> None:
    """Scale the last layer of a built router, and add the noise of the recipe.

    Raises:
        UserError: an option does not apply to this kind of router.
    """
    if not is_trained(router):
        return
    chooses_experts = router.paths.base is None and router.paths.segment is None
    if options.balance_bias and not chooses_experts:
        raise _refusal(
            name, "balance_bias", "it balances experts that are chosen, and this router has none"
        )
    if options.expert_dropout and router.paths.base is not None:
        raise _refusal(
            name, "expert_dropout", f"its paths are {' and '.join(router.paths.names)}, not experts"
        )
    if options.noise == "noisy_top_k" and router.paths.segment is not None:
        raise _refusal(
            name,
            "noise: noisy_top_k",
            "its deviation is learnt for each token, and this router scores segments",
        )
    if options.init_scale != 1:
        _scale_last_layer(router, options.init_scale, name)
    if wanted(options) or options.noise == "jitter" or options.float32:
        # Dropout must leave as many experts as a token may take.
        count = len(router.paths.chosen)
        least = min(count, math.ceil(router.mean_experts - len(router.paths.always)))
        router.noise = TrainingNoise(options, router.spec.d_model, router.paths, least)


def wanted(options: RouterTraining) -> set[str]:
    """Return the options that act on scores.

    A router must pass its scores through `bench.routing.scores` for these.
    """
    acting = {
        "noise": options.noise in ("gaussian", "noisy_top_k"),
        "balance_bias": bool(options.balance_bias),
        "expert_dropout": bool(options.expert_dropout),
    }
    return {option for option, acts in acting.items() if acts}


def _scale_last_layer(router: Router, factor: float, name: str) -> None:
    """Scale the module with the last registered matrix, including its bias."""
    # Modules are listed in the order of registration, usually also the order of use.
    last = next(
        (module for module in reversed(list(router.modules())) if _has_matrix(module)), None
    )
    if last is None:
        raise _refusal(name, "init_scale", "it has no weight matrix")
    with torch.no_grad():
        for parameter in last.parameters(recurse=False):
            parameter.mul_(factor)


def _has_matrix(module: nn.Module) -> bool:
    return any(
        parameter.dim() >= 2 and parameter.requires_grad
        for parameter in module.parameters(recurse=False)
    )


def check_honoured(router: Router, plan: RoutingPlan, options: RouterTraining, name: str) -> None:
    """Check that a router followed the recipe when it made a plan in training.

    Raises:
        UserError: its scores do not pass through `bench.routing.scores`, or a loss needs scores and
            the plan has none.
    """
    if router.supervised and plan.scores is None:
        raise UserError(
            f"Router {name!r} cannot learn right paths: plans of the router it wraps have no "
            "scores. Wrap a learned one."
        )
    if not is_trained(router):
        return
    # The noise module notes which options the router has asked it for.
    if isinstance(router.noise, TrainingNoise) and (
        ignored := sorted(wanted(options) - router.noise.asked)
    ):
        calls = {
            "noise": "perturb",
            "expert_dropout": "perturb",
            "balance_bias": "top_experts or biased",
        }
        raise _refusal(
            name, ignored[0], f"its scores do not pass through bench.routing.{calls[ignored[0]]}"
        )
    # A loss of the router's own brings its own scores.
    lacking = [
        loss
        for loss, weight in options.losses.items()
        if weight and loss in STANDARD_LOSSES and loss not in router.aux_losses
    ]
    if lacking and plan.scores is None:
        raise _refusal(name, f"losses: {lacking[0]}", "its plans have no scores")


def _refusal(name: str, option: str, reason: str) -> UserError:
    return UserError(f"Router {name!r} cannot be trained with {option!r}: {reason}. {_ADVICE}")
