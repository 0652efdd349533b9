"""Supervise a learned router with the right paths of a share of the training documents.

The idea is from "Why do models with conditional computation learn suboptimal solutions?". If a
little supervision improves the other documents, the fault is in the optimisation, not in a lack of
better routes.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bench.routing import (
    AuxLoss,
    LayerTrace,
    Made,
    Router,
    RouterInput,
    RouterSpec,
    RoutingPlan,
    TrainStatistics,
    losses,
    register,
)

RouterOption = Router | str | Mapping[str, Any]


@register("partially_supervised", family="supervised")
class PartiallySupervised(Router):
    """Another router, with a cross-entropy of its scores to labels.

    A share of the training documents has labels. Losses, threshold, state and budget are those of
    the other router. A document is drawn by its number alone, so the same tokens are supervised in
    every epoch, and a larger share contains a smaller one.

    Args:
        inner: the router, by name, or as {router: name, options: {...}}.
        source: source of the labels: the choice of a "heuristic", the "truth" of data with right
            paths, or an "oracle". The oracle upgrades the tokens with the highest utility, as many
            of those with a known utility as the budget allows. It runs on sequences with a
            supervised document only.
        heuristic: the rule for the source "heuristic", by name or with options, like `inner`. It
            must have the same paths. The label is its choice in training, such as the highest share
            of a sequence. A rule that draws, draws the same for the same place of each batch.
        share: share of the training documents with labels.
        weight: weight of the cross-entropy.
        anneal: share of training over which the weight falls linearly to 0; 0 keeps it.
    """

    wraps = ("inner", "heuristic")

    def __init__(
        self,
        inner: RouterOption = "mlp_gate",
        source: Literal["heuristic", "truth", "oracle"] = "heuristic",
        heuristic: RouterOption = "frequency",
        share: float = 0.1,
        weight: float = 1.0,
        anneal: float = 0.0,
    ) -> None:
        super().__init__()
        # The registry has replaced names by routers: see `Router.wraps`.
        assert isinstance(inner, Router)
        assert isinstance(heuristic, Router)
        if source not in ("heuristic", "truth", "oracle"):
            raise ValueError(f"source is {source!r}; allowed are 'heuristic', 'truth', 'oracle'.")
        for name, value in (("share", share), ("anneal", anneal)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}; it must lie in [0, 1].")
        self.inner, self.source, self.anneal = inner, source, anneal
        self.paths, self.layers, self.mean_experts = inner.paths, inner.layers, inner.mean_experts
        self.capacity, self.memory = inner.capacity, inner.memory
        self.needs, self.oracle = inner.needs, inner.oracle
        self.trains_dense, self.allows_none = inner.trains_dense, inner.allows_none
        self.pointwise = inner.pointwise
        # The other router's losses must not see the labels.
        self.aux_losses = {
            name: replace(loss, compute=partial(_unseen, loss.compute, inner))
            for name, loss in inner.aux_losses.items()
        }
        self.heuristic: Router | None = None
        # Without supervision it is the other router exactly, and pays for nothing more.
        if share and weight:
            self.supervised = share
            uses: frozenset[Made] = (
                frozenset({"labels", "utility"}) if source == "oracle" else frozenset({"labels"})
            )
            self.aux_losses["supervised"] = AuxLoss(
                self._cross_entropy, weight, uses, anneal or 1.0, layers="mean"
            )
            self._ask_for_labels(heuristic)

    def _ask_for_labels(self, heuristic: Router) -> None:
        if self.source == "heuristic":
            if self.paths.segment is not None:
                raise ValueError("inner merges its experts, so there is no choice to supervise.")
            # Labels are indices of paths, so both routers must have the same ones.
            if heuristic.paths != self.paths:
                ours, theirs = (
                    f"{'/'.join(paths.names)} at the {paths.site.value} site"
                    for paths in (self.paths, heuristic.paths)
                )
                raise ValueError(
                    f"heuristic chooses among {theirs}, inner among {ours}; they must be the same."
                )
            self.heuristic = heuristic
            self.needs = self.needs | heuristic.needs
        else:
            self.needs = self.needs | {"truth" if self.source == "truth" else "utility"}

    def relative_share(self, path: str, place: int, count: int) -> float:
        """Return the share that the other router states."""
        return self.inner.relative_share(path, place, count)

    def inside(self) -> Router | None:
        """Make the router inside the other router's block."""
        return self.inner.inside()

    def build(self, spec: RouterSpec) -> None:
        """Build the other router, then the heuristic.

        In this order the other router draws the same weights as alone.
        """
        super().build(spec)
        self.inner.build(spec)
        self.knob = self.inner.knob
        if self.heuristic is not None:
            self.heuristic.build(spec)

    def _apply(self, fn: Any, recurse: bool = True) -> "PartiallySupervised":
        """Move to a device or type. The knob stays the buffer of the other router."""
        super()._apply(fn, recurse)
        self.knob = self.inner.knob
        return self

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        """Return the other router's plan, from its own part of the inputs."""
        return self.inner(_visible(inputs, self.inner))

    def fit(self, statistics: TrainStatistics) -> None:
        """Fit the other router and the heuristic."""
        self.inner.fit(statistics)
        if self.heuristic is not None:
            self.heuristic.fit(statistics)

    def after_step(self, trace: LayerTrace) -> None:
        """Update the other router."""
        self.inner.after_step(_seen(trace, self.inner))

    def label(self, trace: LayerTrace) -> Int[Tensor, "batch seq"]:
        """Return the choice of the source."""
        if self.source == "oracle":
            assert trace.utility is not None
            return self._most_useful(trace.utility)
        if self.source == "truth":
            truth = trace.inputs.truth
            assert truth is not None
            return torch.where(truth < 0, -100, truth % len(self.paths.names))
        assert self.heuristic is not None
        seen, device = _visible(trace.inputs, self.heuristic), trace.inputs.tokens.device
        # Its own generator: labels must not move the draws of the other router.
        noise = torch.Generator(device).manual_seed(self.spec.seed % 2**32 + self.spec.layer)
        return (
            self.heuristic(replace(seen, selection="topk", noise=None, generator=noise))
            .mask.int()
            .argmax(-1)
        )

    def _most_useful(self, utility: Float[Tensor, "batch seq"]) -> Int[Tensor, "batch seq"]:
        """Return 1 for the share `capacity` of highest known utilities, 0 for the other known."""
        # Only tokens of a fork have a utility; the others get no label.
        known = ~utility.isnan()
        order = utility.masked_fill(~known, -torch.inf).flatten().argsort(descending=True)
        place = (
            torch.empty_like(order)
            .scatter(0, order, torch.arange(len(order), device=order.device))
            .view_as(known)
        )
        chosen = place < (self.spec.capacity * known.sum()).round()
        return torch.where(known, chosen.long(), -100)

    def _cross_entropy(self, trace: LayerTrace) -> Float[Tensor, ""]:
        left = max(0.0, 1 - trace.inputs.progress / self.anneal) if self.anneal else 1.0
        return left * losses.supervised(trace)


def _visible(inputs: RouterInput, router: Router) -> RouterInput:
    """Return the inputs without the fields that a router did not ask for, in all layers so far."""
    kept = {
        name: getattr(inputs, name) if name in router.needs else None
        for name in ("tags", "truth", "attention", "received", "stream")
    }
    before = inputs.previous
    return replace(inputs, **kept, previous=None if before is None else _seen(before, router))


def _seen(trace: LayerTrace, router: Router) -> LayerTrace:
    """Return the trace of a layer without labels, for a router without supervision."""
    utility = trace.utility if "utility" in router.needs else None
    return replace(trace, inputs=_visible(trace.inputs, router), utility=utility, labels=None)


def _unseen(
    compute: Callable[[LayerTrace], Float[Tensor, ""]], router: Router, trace: LayerTrace
) -> Float[Tensor, ""]:
    """Compute a loss of the other router from a trace without labels."""
    return compute(_seen(trace, router))
