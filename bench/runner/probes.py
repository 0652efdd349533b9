"""Probe a cell while it trains: its loss curve and its plans."""

from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from bench.conformance.unchanged import unchanged
from bench.data import Windows, windows
from bench.evaluation.calibrate import calibrate
from bench.evaluation.evaluate import evaluate
from bench.evaluation.headline import domain_losses, mean_loss
from bench.model.assemble import Model
from bench.record import CurvePoint
from bench.runner.resolve import ResolvedCell


def cut(
    resolved: ResolvedCell, split: Literal["calibration", "validation"], per_domain: int
) -> Windows:
    """Return fixed windows of a held-out split."""
    corpus = resolved.corpus
    held_out = corpus.calibration if split == "calibration" else corpus.validation
    return windows(held_out, seq_len=resolved.cell.suite.seq_len, per_domain=per_domain)


@dataclass
class Watch:
    """Causal probes during training.

    Attributes:
        resolved: the running cell.
        model: the model of the cell.
        curve: the results of the probes so far.
        masks: routed site -> masks of its plans at every probe.
    """

    resolved: ResolvedCell
    model: Model
    curve: list[CurvePoint] = field(default_factory=list[CurvePoint])
    masks: dict[int, list[Tensor]] = field(default_factory=dict[int, list[Tensor]])

    def __post_init__(self) -> None:
        # All probes use the same windows, so that the curve shows training alone.
        count = self.resolved.cell.suite.evaluation.probe_windows
        self.validation = cut(self.resolved, "validation", count)
        self.calibration = cut(self.resolved, "calibration", count)

    def state_dict(self) -> dict[str, Any]:
        """Return the results of the probes so far."""
        return {"curve": [point.model_dump() for point in self.curve], "masks": self.masks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state."""
        self.curve = [CurvePoint.model_validate(point) for point in state["curve"]]
        self.masks = state["masks"]

    def probe(
        self, step: int, tokens: int, flops: float, seconds: float, train_loss: float
    ) -> None:
        """Calibrate and evaluate on a few windows of every domain.

        Raises:
            RuleBroken: a router learns from held-out text.
        """
        # A router that learns while it reads held-out text would have an unfair loss.
        with unchanged(self.model.decoder, f"The probe at step {step}"):
            calibrate(self.model, self.calibration, 1.0, self.resolved.dtype)
            found = evaluate(
                self.model,
                self.validation,
                self.resolved.cell.suite.evaluation.batch_size,
                self.resolved.dtype,
                keep=True,
            )
        loss = mean_loss(
            domain_losses(found.nats, self.validation, self.resolved.corpus), self.resolved.corpus
        )
        self.curve.append(
            CurvePoint(
                step=step,
                tokens=tokens,
                flops=flops,
                seconds=seconds,
                train_loss=train_loss,
                loss=loss,
            )
        )
        for site, mask in found.masks.items():
            self.masks.setdefault(site, []).append(mask)
