"""Balance experts: the options of token-choice routers, and their rules as pure functions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import inf
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bench.routing.balance_loss import Affinity, Choice, Scope, balance_loss, load_shares

Method = Literal["none", "auxiliary", "soft", "z", "sign_bias", "quantile"]
BalanceOption = str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]]
"""A method, or the fields of a `Balance`, or a list of these."""

SCOPES: Mapping[str, tuple[Scope, ...]] = {
    "auxiliary": get_args(Scope),
    "soft": get_args(Scope),
    "quantile": ("batch", "run"),
}
"""Method -> scopes that it has; other methods have the batch alone."""
WEIGHTS: Mapping[str, float] = {"auxiliary": 0.01, "soft": 0.01, "z": 0.001}
"""Default weights of losses.

Sources: Switch (arXiv:2101.03961), arXiv:2310.07188, ST-MoE (arXiv:2202.08906).
"""
MOMENTUM: Mapping[str, float] = {"auxiliary": 1.0, "soft": 1.0, "quantile": 0.9}
"""Default momentum of running means; 1 weighs all steps of the run alike."""
RANGES: Mapping[str, tuple[float, float]] = {
    "weight": (0.0, inf),
    "rate": (0.0, inf),
    "momentum": (0.0, 1.0),
}
"""Allowed values of the numbers."""
READERS: Mapping[str, tuple[str, ...]] = {
    "weight": tuple(WEIGHTS),
    "rate": ("sign_bias",),
    "momentum": tuple(MOMENTUM),
}
"""Number -> methods that read it."""


@dataclass(frozen=True)
class Balance:
    """One rule that keeps the loads of experts alike.

    Attributes:
        method: "auxiliary" is the load-balancing loss of Switch (arXiv:2101.03961, section 2.2).
            "soft" is the same with loads counted over tokens that take one expert
            (arXiv:2310.07188, section 3.2). "z" keeps logits small (ST-MoE, arXiv:2202.08906,
            equation 5). "sign_bias" moves a bias of the choice by a fixed step towards balance
            (arXiv:2408.15664, algorithm 1). "quantile" solves the bias for balance on the last
            batch (kexue.fm 11619). "none" does nothing.
        scope: tokens over which a load is counted: of each "sequence", of the "batch", or of the
            "run" so far (arXiv:2501.11873). The quantiles of a run are averaged over its steps.
        weight: weight of a loss; None for `WEIGHTS`.
        rate: step of the sign bias.
        momentum: momentum of the mean over a "run"; None for `MOMENTUM`.
    """

    method: Method
    scope: Scope = "batch"
    weight: float | None = None
    rate: float = 0.001
    momentum: float | None = None

    @property
    def loss_weight(self) -> float:
        """Return the weight of the loss; 0 for a method without one."""
        return WEIGHTS.get(self.method, 0.0) if self.weight is None else self.weight

    def newest(self, steps: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Return the weight of the newest step in the mean over a run, after `steps` steps."""
        # The plain mean at first: a fixed momentum would overweigh the first step.
        momentum = MOMENTUM[self.method] if self.momentum is None else self.momentum
        return (1 / (steps + 1)).clamp_min(1 - momentum)


def read_balance(given: Any) -> tuple[Balance, ...]:
    """Read the option of a router, a `BalanceOption`.

    Raises:
        ValueError: an unknown field, a value that is not allowed, or two rules that exclude each
            other.
    """
    # One method, or one mapping, is a list of one.
    listed = [given] if isinstance(given, str | Mapping) else given
    if not isinstance(listed, list | tuple):
        raise ValueError(
            f"balance is {given!r}; allowed is a method, a mapping of fields, or a list of these."
        )
    found = tuple(_read_one(one) for one in listed)
    # Two rules of a group would share one loss name, or one bias.
    for means in (("auxiliary", "soft"), ("sign_bias", "quantile"), ("z",)):
        if sum(one.method in means for one in found) > 1:
            raise ValueError(f"balance has {' or '.join(means)} more than once; give one.")
    return found


def _read_one(given: Any) -> Balance:
    if not isinstance(given, str | Mapping):
        raise ValueError(f"balance has {given!r}; allowed is a method, or a mapping of fields.")
    named = {"method": given} if isinstance(given, str) else given
    # A field that is None is left at its default, so that a suite can reset it.
    values: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    known = [field.name for field in fields(Balance)]
    if strange := sorted(set(values) - set(known)):
        raise ValueError(f"balance has {strange}; known are {known}.")
    method, scope = values.get("method", ""), values.get("scope", "batch")
    if method not in get_args(Method):
        raise ValueError(
            f"balance has method {method!r}; allowed are {', '.join(get_args(Method))}."
        )
    # Only some methods count the load over a sequence or over the run.
    allowed = SCOPES.get(method, ("batch",))
    if scope not in allowed:
        raise ValueError(
            f"balance by {method!r} has scope {scope!r}; allowed is {' or '.join(allowed)}."
        )
    _check_numbers(method, scope, values)
    return Balance(**values)


def _check_numbers(method: str, scope: str, values: Mapping[str, Any]) -> None:
    """Refuse a number out of its range, or one that the rule would ignore."""
    for name, (least, most) in RANGES.items():
        if name not in values:
            continue
        value = values[name]
        if not (isinstance(value, int | float) and least <= value <= most):
            raise ValueError(f"balance has {name} {value!r}; allowed is {least:g} to {most:g}.")
        if method not in READERS[name]:
            raise ValueError(
                f"balance by {method!r} has {name} {value!r}, which is of "
                f"{' and '.join(READERS[name])} alone. Leave it out."
            )
    # Only a run has a mean over steps.
    if "momentum" in values and scope != "run":
        raise ValueError(
            f"balance by {method!r} has momentum {values['momentum']!r} with scope {scope!r}; "
            "only a run has a mean. Add scope: run, or leave it out."
        )


def sign_step(load: Float[Tensor, " expert"], rate: float) -> Float[Tensor, " expert"]:
    """Return the step of a balance bias: up below the mean load, down above it.

    arXiv:2408.15664, algorithm 1, less its mean, so that biases do not drift together.
    """
    step = rate * (load.mean() - load).sign()
    return step - step.mean()


def quantile_bias(
    scores: Float[Tensor, "token expert"], bias: Float[Tensor, " expert"], count: int
) -> Float[Tensor, " expert"]:
    """Return the bias under which each expert is chosen by `count / experts` of the tokens.

    A token takes expert e if its biased score is above the (count+1)-th largest, the cutoff. So e
    needs a bias above the cutoff less the score, and of these needs the quantile is taken
    (kexue.fm 11619, 11626). The cutoffs are those of the present bias.
    """
    cutoff = (scores + bias).topk(count + 1).values[:, -1:]
    needed = (cutoff - scores).quantile(count / scores.shape[1], dim=0)
    return needed - needed.mean()


class Balancer(nn.Module):
    """Balance of one bank of experts: its losses, and its state, which moves after each step.

    Args:
        rules: the rules.
        experts: number of experts.
        active: number of experts per token.

    Attributes:
        bias: bias of the affinities for the choice alone; None without one.
    """

    bias: Tensor | None
    steps: Tensor
    run_shares: Tensor

    def __init__(self, rules: Sequence[Balance], experts: int, active: int) -> None:
        super().__init__()
        self.rules, self.active = tuple(rules), active
        biased = any(rule.method in ("sign_bias", "quantile") for rule in rules)
        self.register_buffer("bias", torch.zeros(experts) if biased else None)
        if any(rule.scope == "run" for rule in rules):
            self.register_buffer("steps", torch.zeros(()))
            self.register_buffer("run_shares", torch.zeros(experts))

    @property
    def moves(self) -> bool:
        """Return whether a step changes the state."""
        return self.bias is not None or any(rule.scope == "run" for rule in self.rules)

    def loss(self, rule: Balance, counted: Choice, probability: Affinity) -> Float[Tensor, ""]:
        """Return the load-balancing loss, by rule "auxiliary" or "soft".

        Args:
            rule: the rule, for its scope.
            counted: choices whose loads are balanced.
            probability: probability of each expert; those of a token add up to 1.
        """
        return balance_loss(self._shares(rule, counted), probability)

    def _shares(self, rule: Balance, counted: Choice) -> Float[Tensor, "group expert"]:
        found = load_shares(counted, rule.scope, rule.method == "soft")
        if rule.scope != "run":
            return found
        # The newest step is included, so the loss of the first step has a mean too.
        return self.run_shares.lerp(found.squeeze(0), rule.newest(self.steps)).unsqueeze(0)

    def after_step(self, counted: Choice, chosen: Choice, affinity: Affinity) -> None:
        """Move the bias, and take the step into the mean over the run.

        Args:
            counted: choices that the losses count.
            chosen: the choices of the step.
            affinity: affinity of each expert, without the bias.
        """
        for rule in self.rules:
            if rule.method == "sign_bias":
                assert self.bias is not None
                self.bias.add_(sign_step(chosen.float().mean((0, 1)), rule.rate))
            elif rule.method == "quantile":
                assert self.bias is not None
                found = quantile_bias(affinity.flatten(0, 1), self.bias, self.active)
                newest = rule.newest(self.steps) if rule.scope == "run" else 1.0
                self.bias.lerp_(found, newest)
            elif rule.scope == "run":
                self.run_shares.copy_(self._shares(rule, counted).squeeze(0))
        if any(rule.scope == "run" for rule in self.rules):
            self.steps.add_(1)
