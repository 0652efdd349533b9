"""Supervised routers: a fixed share of the training documents comes with labels."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from bench.backbone.decoder import device_of
from bench.flops.counter import count
from bench.model.assemble import Model
from bench.rng import hash_uniform
from bench.routing.contract import LayerTrace
from bench.training.auxiliary import asks_for, only_for_labels

UNKNOWN = -100
"""Label of a token whose right path the router is not told."""
_SEED = 0


def supervised_documents(count: int, share: float) -> Bool[Tensor, " document"]:
    """Which of `count` documents are supervised: `share` of them, at least one, in the order of a
    hash of their number.

    The same in every run, so nothing but the number decides; documents of a smaller share are among
    those of a larger one.
    """
    order = hash_uniform(_SEED, torch.arange(count)).argsort(stable=True)
    chosen = torch.zeros(count, dtype=torch.bool)
    chosen[order[: max(1, round(share * count)) if share else 0]] = True
    return chosen


class Supervisor:
    """Labels the traces of training steps, for routers that ask for it.

    Args:
        model: the model; its ledger is charged.
        num_documents: in the training split.
    """

    def __init__(self, model: Model, num_documents: int) -> None:
        self.model = model
        shares = {
            site: router.supervised
            for site, router in enumerate(model.decoder.routers)
            if router.supervised
        }
        self.chosen = {
            site: supervised_documents(num_documents, share).to(device_of(model.decoder))
            for site, share in shares.items()
        }

    def sequences(
        self, documents: Int[Tensor, "batch seq"], progress: float
    ) -> dict[int, Bool[Tensor, " batch"]]:
        """Site -> which sequences hold a supervised document, for routers whose utility serves
        nothing but their labels.

        Args:
            documents: number of each token's document in the training split.
            progress: share of the training budget spent.
        """
        serving = [
            site for site in self.chosen if only_for_labels(self.model.losses[site], progress)
        ]
        return {site: self.chosen[site][documents].any(1) for site in serving}

    @torch.no_grad()
    def label(self, traces: list[LayerTrace], documents: Int[Tensor, "batch seq"]) -> None:
        """Fill `labels` of the traces of a training step, and charge what making them took.

        Args:
            traces: with utility where a router needs it.
            documents: number of each token's document in the training split.
        """
        for site, chosen in self.chosen.items():
            router, losses = self.model.decoder.routers[site], self.model.losses[site]
            progress = traces[site].inputs.progress
            if not asks_for(router, "labels", losses, progress):
                continue
            if asks_for(router, "utility", losses, progress) and traces[site].utility is None:
                continue  # of this layer no fork was made in this step
            found: list[Tensor] = []
            flops = count(
                lambda: found.append(self.model.decoder.routers[site].label(traces[site]))  # noqa: B023
            ).total
            traces[site].labels = found[0].masked_fill(~chosen[documents], UNKNOWN)
            self.model.ledger.charge("labels", "forward", flops)
