"""Partial supervision: a learned router is told the right paths of a share of the training
documents.

Asked by "Why do models with conditional computation learn suboptimal solutions?": if a little
supervision lifts the rest, routing fails for want of optimisation, and not for want of a better
route.
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
    """Another router with a cross-entropy of its scores against labels, on a share of the training
    documents.

    Everything else, losses, threshold, state and budget, is the other router's own. Which documents
    have labels follows from their number alone and is never redrawn, so that the same tokens are
    supervised in every epoch, and documents of a smaller share are among those of a larger one.

    Args:
        inner: the router, by name, or as {router: name, options: {...}}.
        source: whose choice the labels are: that of a "heuristic", the "truth" where the data tell
            it, or that of an "oracle" that gives the upgrade to the tokens whose utility is
            highest, as many of those with a known utility as the budget allows; it is asked about
            sequences with a supervised document only.
        heuristic: the rule for source "heuristic", given as `inner` is; it must choose among the
            same paths. The label is what it chooses in training, such as the highest share of a
            sequence; one that draws, draws the same for the same place of each batch.
        share: of the training documents.
        weight: of the cross-entropy.
        anneal: share of training over which the weight falls to 0 in a straight line; 0 keeps it.
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
        assert isinstance(inner, Router)
        assert isinstance(heuristic, Router)
        if source not in ("heuristic", "truth", "oracle"):
            raise ValueError(f"source is {source!r}; allowed are 'heuristic', 'truth', 'oracle'.")
        for name, value in (("share", share), ("anneal", anneal)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}; it must lie in [0, 1].")
        self.inner, self.source, self.anneal = inner, source, anneal
        self.paths, self.layers, self.mean_experts = inner.paths, inner.layers, inner.mean_experts
        self.needs, self.oracle = inner.needs, inner.oracle
        self.trains_dense, self.allows_none = inner.trains_dense, inner.allows_none
        self.aux_losses = {
            name: replace(loss, compute=partial(_unseen, loss.compute, inner))
            for name, loss in inner.aux_losses.items()
        }
        self.heuristic: Router | None = None
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
                raise ValueError("inner merges its experts, so that there is no choice to be told.")
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
        """Build the other router, and the heuristic after it, so that the former draws what it
        draws alone.
        """
        super().build(spec)
        self.inner.build(spec)
        self.knob = self.inner.knob
        if self.heuristic is not None:
            self.heuristic.build(spec)

    def _apply(self, fn: Any, recurse: bool = True) -> "PartiallySupervised":
        """Move to a device or type; the knob stays the very buffer of the other router."""
        super()._apply(fn, recurse)
        self.knob = self.inner.knob
        return self

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        """The other router's plan, from what it may see."""
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
        """The choice of the source."""
        if self.source == "oracle":
            assert trace.utility is not None
            return self._most_useful(trace.utility)
        if self.source == "truth":
            truth = trace.inputs.truth
            assert truth is not None
            return torch.where(truth < 0, -100, truth % len(self.paths.names))
        assert self.heuristic is not None
        seen, device = _visible(trace.inputs, self.heuristic), trace.inputs.tokens.device
        noise = torch.Generator(device).manual_seed(self.spec.seed % 2**32 + self.spec.layer)
        return (
            self.heuristic(replace(seen, selection="topk", noise=None, generator=noise))
            .mask.int()
            .argmax(-1)
        )

    def _most_useful(self, utility: Float[Tensor, "batch seq"]) -> Int[Tensor, "batch seq"]:
        """1 for the highest of the utilities that are known, `capacity` of them, 0 for the others."""
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
    """What a router may see of the inputs that were made for more than it, in this layer and in
    those before.
    """
    kept = {
        name: getattr(inputs, name) if name in router.needs else None
        for name in ("tags", "truth", "attention")
    }
    before = inputs.previous
    return replace(inputs, **kept, previous=None if before is None else _seen(before, router))


def _seen(trace: LayerTrace, router: Router) -> LayerTrace:
    """The trace of a layer as a router that is told nothing has it."""
    utility = trace.utility if "utility" in router.needs else None
    return replace(trace, inputs=_visible(trace.inputs, router), utility=utility, labels=None)


def _unseen(
    compute: Callable[[LayerTrace], Float[Tensor, ""]], router: Router, trace: LayerTrace
) -> Float[Tensor, ""]:
    """A loss of the other router, without what was made for its supervision."""
    return compute(_seen(trace, router))
