"""Decide which auxiliary losses of a router are on in a step, and what must be made for them.

Labels cost work, and an idle loss costs none.
"""

from collections.abc import Mapping

from bench.model.equip import LossTerm
from bench.routing.contract import AuxLoss, LayerTrace, Made, Router

LossTerms = Mapping[str, LossTerm]


def active(losses: LossTerms, progress: float = 0.0) -> dict[str, LossTerm]:
    """Return the losses that have not ended at this share of the training budget."""
    return {
        name: term
        for name, term in losses.items()
        if progress < term.loss.until or term.loss.until >= 1
    }


def asks_for(router: Router, what: Made, losses: LossTerms, progress: float = 0.0) -> bool:
    """Return whether something must be made for a router.

    It declares the need, and of the losses that use it one is on.
    """
    declared = bool(router.supervised) if what == "labels" else what in router.needs
    users = {name for name, loss in router.aux_losses.items() if what in loss.uses}
    return declared and (not users or any(name in users for name in active(losses, progress)))


def only_for_labels(losses: LossTerms, progress: float = 0.0) -> bool:
    """Return whether utility serves labels alone, so that documents without a label need none."""
    users = [term.loss for term in active(losses, progress).values() if "utility" in term.loss.uses]
    return bool(users) and all("labels" in loss.uses for loss in users)


def has_target(loss: AuxLoss, trace: LayerTrace) -> bool:
    """Return whether all that the loss uses was made for this layer in this step."""
    return all(getattr(trace, what) is not None for what in loss.uses)
