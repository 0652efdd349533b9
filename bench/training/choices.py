"""Count the choices of routers in the last part of training, for comparison with evaluation."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bench.routing.contract import LayerTrace, Router

LAST = 0.9
"""Share of the training budget from which choices are counted."""


class Choices:
    """Count the tokens that chose each path of each site in the last part of training.

    Args:
        routers: the routers of the model, in the order of the traces.
    """

    def __init__(self, routers: Sequence[Router]) -> None:
        self.routers = routers
        self.taken: list[Tensor | None] = []
        self.tokens = 0

    def note(self, traces: Sequence[LayerTrace], tokens: int, progress: float) -> None:
        """Count the choices of one step.

        A step before the last part replaces the one before it, so that there is always a step.

        Args:
            traces: traces of the step.
            tokens: number of tokens in the step.
            progress: share of the training budget spent before the step.
        """
        found = [_chosen(router, trace) for router, trace in zip(self.routers, traces, strict=True)]
        if progress < LAST or not self.tokens:
            self.taken, self.tokens = found, tokens
            return
        # Counts of a checkpoint are on the CPU.
        self.taken = [
            None if old is None or new is None else old.to(new.device) + new
            for old, new in zip(self.taken, found, strict=True)
        ]
        self.tokens += tokens

    @property
    def shares(self) -> list[list[float]]:
        """Return the share of all tokens that chose each path, `[site][path]`; empty if unknown."""
        return [[] if taken is None else (taken / self.tokens).tolist() for taken in self.taken]

    def state_dict(self) -> dict[str, Any]:
        """Return all counts."""
        return {"taken": self.taken, "tokens": self.tokens}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.taken, self.tokens = state["taken"], state["tokens"]


def _chosen(router: Router, trace: LayerTrace) -> Tensor | None:
    """Return the number of tokens that chose each path; None if a dense plan names no choice."""
    if router.trains_dense and trace.plan.choice is None:
        return None
    return trace.plan.chosen.sum((0, 1), dtype=torch.float64)
