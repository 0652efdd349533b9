"""Order training sequences from easy to hard by the router's scores (arXiv:2310.07188).

The data order of a seed is cut into windows of steps. Before a window is trained on, the present
model reads all its sequences. The complexity of a sequence is the share of its tokens, layer by
layer, that the router gives more than the least. The paper orders a whole epoch anew; a window
makes this possible where no text is read twice. The first window stays as it was drawn, because
the router has learned nothing before it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor

from bench.backbone.decoder import device_of
from bench.backbone.passes import autocast, make_pass
from bench.config.row import CurriculumConfig
from bench.data import Batch
from bench.model.assemble import Model
from bench.rng import generator
from bench.routing.contract import LayerTrace


class Curriculum:
    """The order of the training sequences, and its state.

    Args:
        model: the model. Its ledger is charged for reading a window.
        drawn: returns the batch of a step, `drawn(step=...)`, in the order of the seed.
        config: length and order of a window; None for the order of the seed.
        seed: seed of the cell.
        dtype: precision of matrix products.

    Attributes:
        correlations: for each ordered window, rank correlation of a sequence's mean share with its
            loss; NaN if either is constant.
    """

    def __init__(
        self,
        model: Model,
        drawn: Callable[..., Batch],
        config: CurriculumConfig | None,
        *,
        seed: int,
        dtype: torch.dtype,
    ) -> None:
        self.model, self.drawn, self.config = model, drawn, config
        self.seed, self.dtype = seed, dtype
        self.window = -1
        self.order = torch.zeros(0, dtype=torch.long)
        self.correlations: list[float] = []
        self._batches: tuple[int, list[Batch]] = (-1, [])

    def batch(self, step: int, progress: float) -> Batch:
        """Return the sequences of a step, reading a new window if the step is its first.

        Args:
            step: number of the step.
            progress: spent share of the training budget.
        """
        if self.config is None:
            return self.drawn(step=step)
        # Sequences are ordered within a window of steps, never across windows.
        window, place = divmod(step, self.config.window)
        if window != self.window:
            self.order = self._ordered(self.config, window, progress)
            self.window = window
        drawn = self._drawn(self.config.window, window)
        size = len(drawn[0].tokens)
        # The order counts sequences of the window; divmod gives batch and row of each.
        rows = [
            divmod(index, size) for index in self.order[place * size : (place + 1) * size].tolist()
        ]
        return Batch(
            *(
                np.stack([getattr(drawn[batch], name)[row] for batch, row in rows])
                for name in ("tokens", "tags", "documents")
            )
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the order of the present window; its sequences follow from the seed."""
        return {
            "window": self.window,
            "order": self.order,
            "correlations": self.correlations,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state, also in the middle of a window."""
        self.window, self.order = state["window"], state["order"]
        self.correlations = state["correlations"]

    def _drawn(self, size: int, window: int) -> list[Batch]:
        """Return the batches of a window in the order of the seed, and keep them."""
        if self._batches[0] != window:
            self._batches = (
                window,
                [self.drawn(step=step) for step in range(window * size, (window + 1) * size)],
            )
        return self._batches[1]

    def _ordered(
        self, config: CurriculumConfig, window: int, progress: float
    ) -> Int[Tensor, " sequence"]:
        """Return the order in which the sequences of a window are trained on."""
        batches = self._drawn(config.window, window)
        if window == 0:
            return torch.arange(len(batches) * len(batches[0].tokens))
        read = [self._read(batch, progress) for batch in batches]
        shares = torch.cat([shares for shares, _ in read])
        losses = torch.cat([losses for _, losses in read])
        mean = shares.mean(1)
        self.correlations.append(_rank_correlation(mean, losses))
        return complexity_order(shares, config.order)

    @torch.no_grad()
    def _read(
        self, batch: Batch, progress: float
    ) -> tuple[Float[Tensor, "batch layer"], Float[Tensor, " batch"]]:
        """Return the complexity and the loss of each sequence of a batch, and charge the pass."""
        device = device_of(self.model.decoder)
        tokens, tags = (torch.from_numpy(x).to(device) for x in (batch.tokens, batch.tags))
        # Draws of its own: reading ahead must not move the noise of training.
        noise = generator(self.seed, f"curriculum.{len(self.correlations)}", device)
        run = make_pass(
            tokens[:, :-1],
            tags[:, :-1],
            selection="topk",
            generator=noise,
            progress=progress,
        )
        with autocast(device, self.dtype):
            logits = self.model.decoder(run)
        nats = F.cross_entropy(logits.float().mT, tokens[:, 1:], reduction="none").mean(1)
        spent = self.model.ledger.active(run.counts, run.tokens.numel())
        self.model.ledger.charge("curriculum", "forward", spent)
        return torch.stack([complexity(trace) for trace in run.traces], 1).cpu(), nats.cpu()


def complexity(trace: LayerTrace) -> Float[Tensor, " batch"]:
    """Return the share of each sequence's tokens that take more than the least.

    That is the path that is not the base, or more than one expert.
    """
    chosen = trace.plan.chosen[..., trace.paths.chosen]
    more = chosen[..., 1:].any(-1) if trace.paths.base else chosen.sum(-1) > 1
    return more.float().mean(1)


def complexity_order(
    shares: Float[Tensor, "sequence layer"], order: str
) -> Int[Tensor, " sequence"]:
    """Order sequences from easy to hard. Equal ones keep their order.

    Args:
        shares: complexity of each sequence.
        order: "similarity" starts with the sequence of the lowest mean share, and goes on by cosine
            similarity to it (section 3.3). "share" goes by the mean share, since the cosine does
            not see how large the shares are.
    """
    mean = shares.mean(1)
    if order == "share":
        return mean.argsort(stable=True)
    first = int(mean.argmin())
    similarity = F.cosine_similarity(shares, shares[first].unsqueeze(0), dim=1)
    # The first sequence stays first, also if it has no share at all and so no direction.
    similarity[first] = 2.0
    return similarity.argsort(descending=True, stable=True)


def _rank_correlation(a: Tensor, b: Tensor) -> float:
    if a.unique().numel() < 2 or b.unique().numel() < 2:
        return float("nan")
    return float(stats.spearmanr(a.numpy(), b.numpy()).statistic)
