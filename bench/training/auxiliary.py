"""Which auxiliary losses of a router are on, and what has to be made for them.

Labels cost work, and an idle loss is to cost none.
"""

from collections.abc import Mapping

from bench.model.equip import STANDARD_LOSSES, is_trained
from bench.routing.contract import AuxLoss, LayerTrace, Made, Router


def active_losses(
    router: Router, weights: Mapping[str, float], progress: float = 0.0
) -> list[tuple[str, float, AuxLoss]]:
    """The auxiliary losses of a router, its own and standard ones, whose weight is not 0, with the
    weight that counts.

    Args:
        router: the router.
        weights: of the suite, by name, over the losses' own.
        progress: share of the training budget spent; losses that have ended by then are left out.
    """
    standard = STANDARD_LOSSES if is_trained(router) else {}
    known = {
        **router.aux_losses,
        **{name: loss for name, loss in standard.items() if name not in router.aux_losses},
    }
    found = [
        (name, weights.get(name, loss.weight), loss)
        for name, loss in known.items()
        if progress < loss.until or loss.until >= 1
    ]
    return [(name, weight, loss) for name, weight, loss in found if weight]


def asks_for(
    router: Router, what: Made, weights: Mapping[str, float], progress: float = 0.0
) -> bool:
    """Whether something has to be made for a router.

    It declares the need, and of the losses that say they use it one is on.
    """
    declared = bool(router.supervised) if what == "labels" else what in router.needs
    users = {name for name, loss in router.aux_losses.items() if what in loss.uses}
    return declared and (
        not users or any(name in users for name, _, _ in active_losses(router, weights, progress))
    )


def only_for_labels(router: Router, weights: Mapping[str, float], progress: float = 0.0) -> bool:
    """Whether utility serves nothing but labels, so that documents without a label need none."""
    users = [
        loss for _, _, loss in active_losses(router, weights, progress) if "utility" in loss.uses
    ]
    return bool(users) and all("labels" in loss.uses for loss in users)


def has_target(loss: AuxLoss, trace: LayerTrace) -> bool:
    """Whether what the loss says it uses was made for this layer in this step."""
    return all(getattr(trace, what) is not None for what in loss.uses)
