"""Decide which auxiliary losses are on in a step, and which labels they need.

Labels cost work, so none are made for a loss that is off.
"""

from collections.abc import Mapping

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
