"""Prepare a row for timing: its training step and its causal evaluation as calls."""

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.backbone.passes import Pass, autocast, make_pass
from bench.data import Windows
from bench.evaluation.calibrate import calibrate
from bench.evaluation.evaluate import Evaluation, evaluate
from bench.flops.ledger import Ledger
from bench.model.assemble import Model
from bench.runner.cell_phase import Pulse
from bench.runner.probes import cut
from bench.runner.resolve import ResolvedCell
from bench.runner.run_cell import prepare, training_task
from bench.training.loop import advance, begin

PROGRESS = 0.5
"""Spent share of the budget in every timed step: the full learning rate, and all losses are on."""


@dataclass(frozen=True)
class Cost:
    """FLOPs per token of one call."""

    active: float
    executed: float
    optimizer: float = 0.0


class Subject:
    """A row that is timed.

    Args:
        resolved: the row as a cell of its suite.
    """

    def __init__(self, resolved: ResolvedCell) -> None:
        self.resolved, self.dtype = resolved, resolved.dtype
        self.model: Model = prepare(resolved, Pulse(resolved.cell))[0]
        self.loop, self.order = begin(self.model, training_task(resolved))
        self.windows: Windows = cut(resolved, "validation", 1)

    def step(self) -> Tensor:
        """Do one training step, as the training loop does."""
        return advance(self.loop, self.order, PROGRESS)

    def calibrate(self) -> None:
        """Set the knobs for evaluation at the budget."""
        config = self.resolved.cell.suite.evaluation
        found = cut(self.resolved, "calibration", min(8, config.calibration_windows))
        calibrate(self.model, found, 1.0, self.dtype)

    def set_windows(self, per_domain: int) -> None:
        """Choose the number of validation windows of an evaluation."""
        self.windows = cut(self.resolved, "validation", per_domain)

    def evaluation(self) -> Evaluation:
        """Evaluate causally on the windows, all in one pass."""
        return evaluate(self.model, self.windows, len(self.windows.tokens), self.dtype)

    def cost_of_evaluation(self) -> Cost:
        """Return the cost of an evaluation."""
        found = self.evaluation()
        return Cost(found.active, found.executed)

    def cost_of_step(self) -> Cost:
        """Return the cost of a training step, from the charges of one.

        The ledger charges active FLOPs alone. Executed FLOPs are more by the ratio of both in a
        forward pass with the choice of training.
        """
        ledger, before = self.model.ledger, self.model.ledger.total
        batch = self.order.batch(self.loop.done.steps, PROGRESS)
        tokens, tags = (
            torch.from_numpy(part[:, :-1]).to(self.loop.device)
            for part in (batch.tokens, batch.tags)
        )
        self.step()
        charged = (ledger.total - before) / tokens.numel()
        # A pass of its own, because the step keeps no counts.
        run = make_pass(tokens, tags, selection="topk", generator=self.loop.noise)
        with torch.no_grad(), autocast(self.loop.device, self.dtype):
            self.model.decoder(run)
        optimizer = self.loop.optimizer_flops / tokens.numel()
        return Cost(charged, charged * _executed_share(ledger, run), optimizer)


def _executed_share(ledger: Ledger, run: Pass) -> float:
    """Return executed over active FLOPs of a forward pass."""
    tokens = run.tokens.numel()
    return ledger.executed(run.counts, tokens, padded=True) / ledger.active(run.counts, tokens)
