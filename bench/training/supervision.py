"""Supervise routers: a fixed share of the training documents comes with labels."""

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
"""Label of a token without supervision."""
_SEED = 0


def supervised_documents(count: int, share: float) -> Bool[Tensor, " document"]:
    """Mark the supervised documents: a `share` of `count` documents, at least one.

    A hash of the document's number decides, so the choice is the same in every run. A larger share
    contains the documents of a smaller one.
    """
    order = hash_uniform(_SEED, torch.arange(count)).argsort(stable=True)
    chosen = torch.zeros(count, dtype=torch.bool)
    chosen[order[: max(1, round(share * count)) if share else 0]] = True
    return chosen


class Supervisor:
    """Labels the traces of training steps, for routers that ask for it.

    Args:
        model: the model. Its ledger is charged.
        num_documents: number of documents in the training split.
    """

    def __init__(self, model: Model, num_documents: int) -> None:
        self.model = model
        shares = {
            site: router.supervised
            for site, router in enumerate(model.decoder.routers)
            if router.supervised
        }
        # Site -> whether each training document is supervised there.
        self.chosen = {
            site: supervised_documents(num_documents, share).to(device_of(model.decoder))
            for site, share in shares.items()
        }

    def sequences(
        self, documents: Int[Tensor, "batch seq"], progress: float
    ) -> dict[int, Bool[Tensor, " batch"]]:
        """Return site -> sequences with a supervised document, where labels alone use utility.

        Args:
            documents: index of each token's document in the training split.
            progress: spent share of the training budget.
        """
        serving = [
            site for site in self.chosen if only_for_labels(self.model.losses[site], progress)
        ]
        return {site: self.chosen[site][documents].any(1) for site in serving}

    @torch.no_grad()
    def label(self, traces: list[LayerTrace], documents: Int[Tensor, "batch seq"]) -> None:
        """Fill `labels` of the traces of a training step, and charge their cost.

        Args:
            traces: traces of the step, with utility if a router needs it.
            documents: index of each token's document in the training split.
        """
        for site, chosen in self.chosen.items():
            router, losses = self.model.decoder.routers[site], self.model.losses[site]
            progress = traces[site].inputs.progress
            if not asks_for(router, "labels", losses, progress):
                continue
            if asks_for(router, "utility", losses, progress) and traces[site].utility is None:
                continue  # this layer was not forked in this step
            # `count` returns the FLOPs, so the labels come out by way of a list.
            found: list[Tensor] = []
            flops = count(lambda: found.append(router.label(traces[site]))).total  # noqa: B023
            # The router labels every token; only supervised documents keep their labels.
            traces[site].labels = found[0].masked_fill(~chosen[documents], UNKNOWN)
            self.model.ledger.charge("labels", "forward", flops)
