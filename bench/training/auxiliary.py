"""Add up the auxiliary losses that are on in a step, and decide which labels they need.

Labels cost work, so none are made for a loss that is off.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from bench.flops.counter import count
from bench.model.equip import LossTerm
from bench.routing.contract import AuxLoss, LayerTrace, Made, Router

LossTerms = Mapping[str, LossTerm]


def active_losses(losses: LossTerms, progress: float = 0.0) -> dict[str, LossTerm]:
    """Return the losses that have not ended at this share of the training budget."""
    return {
        name: term
        for name, term in losses.items()
        if progress < term.loss.until or term.loss.until >= 1
    }


def asks_for(router: Router, what: Made, losses: LossTerms, progress: float = 0.0) -> bool:
    """Return whether utility or labels must be made for a router.

    They must if the router declares the need, and a loss that uses them is on.
    """
    declared = bool(router.supervised) if what == "labels" else what in router.needs
    # A router that needs them without such a loss, for example in `after_step`, always gets them.
    users = {name for name, loss in router.aux_losses.items() if what in loss.uses}
    return declared and (
        not users or any(name in users for name in active_losses(losses, progress))
    )


def only_for_labels(losses: LossTerms, progress: float = 0.0) -> bool:
    """Return whether utility is used for labels alone.

    Then only supervised documents need it.
    """
    users = [
        term.loss
        for term in active_losses(losses, progress).values()
        if "utility" in term.loss.uses
    ]
    return bool(users) and all("labels" in loss.uses for loss in users)


def has_target(loss: AuxLoss, trace: LayerTrace) -> bool:
    """Return whether this layer has everything that the loss uses in this step."""
    return all(getattr(trace, what) is not None for what in loss.uses)


class AuxiliaryLosses:
    """Add up the weighted auxiliary losses of each step, and price them.

    They are priced at the first step, at metered steps, and when their set changes.

    Args:
        losses: the losses of each routed site.

    Attributes:
        flops: FLOPs of their forward pass; None until they are priced, at the next step.
        last: name of each loss -> its value in the last step.
    """

    def __init__(self, losses: Sequence[LossTerms]) -> None:
        self.losses = losses
        self.flops: float | None = None
        self.last: dict[str, Tensor] = {}
        self._priced: list[str] = []

    def total(self, traces: Sequence[LayerTrace]) -> Tensor | None:
        """Return the sum of the losses, each a sum or mean over the sites that have it.

        None without any loss in this step.
        """
        due = self._due(traces)
        # Another set of losses has another price.
        if (names := sorted(name for name, *_ in due)) != self._priced:
            self.flops, self._priced = None, names
        values: dict[str, list[Tensor]] = {}
        flops = 0.0
        for name, term, trace in due:
            # First with gradient, because a trace keeps the fields that it has gathered.
            values.setdefault(name, []).append(term.weight * term.loss.compute(trace))
            if self.flops is None:
                # Count a separate call without gradients, which charges the forward pass alone.
                with torch.no_grad():
                    flops += count(lambda: term.loss.compute(trace)).total  # noqa: B023
        if self.flops is None:
            self.flops = flops
        if not values:
            return None
        # Each loss has one rule for all its sites.
        over = {name: term.loss.layers for name, term, _ in due}
        totals = {
            name: torch.stack(found).sum() if over[name] == "sum" else torch.stack(found).mean()
            for name, found in values.items()
        }
        self.last = {name: value.detach() for name, value in totals.items()}
        return torch.stack(list(totals.values())).sum()

    def _due(self, traces: Sequence[LayerTrace]) -> list[tuple[str, LossTerm, LayerTrace]]:
        """Return the losses that are on, at the sites that have their targets in this step."""
        return [
            (name, term, trace)
            for losses, trace in zip(self.losses, traces, strict=True)
            for name, term in active_losses(losses, trace.inputs.progress).items()
            if has_target(term.loss, trace)
        ]

    def state(self) -> tuple[float | None, list[str], dict[str, Tensor]]:
        """Return the state that the next step depends on."""
        return self.flops, self._priced, self.last

    def load_state(self, state: tuple[float | None, list[str], dict[str, Tensor]]) -> None:
        """Go on from a state."""
        self.flops, self._priced, self.last = state
