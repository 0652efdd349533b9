"""Measure the headline: the loss at exactly B, from a sweep of calibrated knob settings."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bench.backbone.decoder import Decoder
from bench.backbone.passes import Decide, ask
from bench.config.suite import EvaluationConfig
from bench.data import Corpus, Windows
from bench.evaluation.calibrate import calibrate
from bench.evaluation.evaluate import Evaluation, evaluate
from bench.model.assemble import Model
from bench.record import BudgetAudit, SpendPoint


@dataclass(frozen=True)
class Visited:
    """One setting of the sweep.

    Attributes:
        knobs: knob of each router, or None.
        nats: loss of each token of the validation windows.
    """

    knobs: list[Tensor | None]
    nats: Float[np.ndarray, "window seq"]


@dataclass
class Headline:
    """The result of an official evaluation.

    Attributes:
        loss: loss at B, nats per byte, unweighted mean over headline domains.
        domain_loss: domain -> loss at B, nats per byte.
        evaluation: evaluation of the validation split at the calibrated knob, with plans.
        audit: the measured spends and the solved sizes.
        visited: settings of the sweep with their losses, B last. The causality proof tries each.
    """

    loss: float
    domain_loss: dict[str, float]
    evaluation: Evaluation
    audit: BudgetAudit
    visited: list[Visited]


@dataclass
class _Sweep:
    points: list[SpendPoint] = field(default_factory=list[SpendPoint])
    domains: list[dict[str, float]] = field(default_factory=list[dict[str, float]])

    def interpolated(self, at: float) -> tuple[float, dict[str, float]]:
        """Return the mean loss and the loss of each domain at a spend."""
        x = [point.spend for point in self.points]
        loss = interpolate(x, [point.loss for point in self.points], at)
        return loss, {
            name: interpolate(x, [losses[name] for losses in self.domains], at)
            for name in self.domains[0]
        }


def knobs_of(decoder: Decoder) -> list[Tensor | None]:
    """Return a copy of each router's knob, or None."""
    return [None if router.knob is None else router.knob.clone() for router in decoder.routers]


def set_knobs(decoder: Decoder, knobs: Sequence[Tensor | None]) -> None:
    """Set each router's knob to a value from `knobs_of`."""
    for router, value in zip(decoder.routers, knobs, strict=True):
        if router.knob is not None and value is not None:
            router.knob.copy_(value)


def domain_losses(
    nats: Float[np.ndarray, "window seq"], windows: Windows, corpus: Corpus
) -> dict[str, float]:
    """Return the nats per byte of each domain: its summed loss over the bytes of its tokens."""
    # The first token of a window is not predicted, so its bytes do not count.
    sizes = corpus.token_bytes[windows.tokens[:, 1:]]
    found: dict[str, float] = {}
    for tag, name in enumerate(corpus.domains):
        rows = windows.tags == tag
        found[name] = float(nats[rows].sum() / sizes[rows].sum())
    return found


def mean_loss(losses: dict[str, float], corpus: Corpus) -> float:
    """Return the unweighted mean over the headline domains."""
    return float(np.mean([losses[name] for name in corpus.headline_domains or corpus.domains]))


def document_losses(
    nats: Float[np.ndarray, "window seq"], windows: Windows, corpus: Corpus
) -> dict[str, tuple[str, float, float]]:
    """Return document name -> (domain, summed nats, bytes), for the bootstrap over documents."""
    documents = windows.documents[:, 1:].ravel()
    size = len(corpus.validation.document_names)
    # A document may lie in several windows, and a window in several documents.
    totals = np.bincount(documents, nats.ravel(), size)
    sizes = np.bincount(documents, corpus.token_bytes[windows.tokens[:, 1:]].ravel(), size)
    split = corpus.validation
    return {
        split.document_names[index]: (
            corpus.domains[split.document_tags[index]],
            round(float(totals[index]), 6),
            float(sizes[index]),
        )
        for index in np.unique(documents).tolist()
    }


def measure(
    model: Model,
    corpus: Corpus,
    calibration: Windows,
    validation: Windows,
    config: EvaluationConfig,
    dtype: torch.dtype,
    decide: Decide = ask,
) -> Headline:
    """Calibrate, evaluate, and return the loss at B.

    A router with knobs is calibrated on the calibration split to each spend of `config.sweep`, and
    evaluated at each on the validation split. A threshold drifts between the two splits, so the
    headline is interpolated at the spend B of the validation split. A router without knobs is
    evaluated once. `decide` asks the routers for plans.
    """
    sweep, visited = _Sweep(), list[Visited]()

    def at(target: float) -> tuple[Evaluation, float]:
        """Return the evaluation at a spend, and the spend on the calibration split."""
        calibrated = calibrate(model, calibration, target, dtype, decide)
        # Metrics read the plans at B, so they are kept there alone.
        found = evaluate(model, validation, config.batch_size, dtype, target == 1.0, decide)
        visited.append(Visited(knobs_of(model.decoder), found.nats))
        losses = domain_losses(found.nats, validation, corpus)
        spend = found.active / model.solution.target
        sweep.points.append(SpendPoint(target=target, spend=spend, loss=mean_loss(losses, corpus)))
        sweep.domains.append(losses)
        return found, calibrated

    has_knob = any(router.knob is not None for router in model.decoder.routers)
    for target in sorted({*config.sweep} - {1.0}) if has_knob else ():
        at(target)
    # B comes last, so that its knobs stay set.
    at_budget, calibrated = at(1.0)
    # Interpolate only between spends on both sides of B; otherwise take the point for B as it is.
    x = [point.spend for point in sweep.points]
    bracketed = has_knob and min(x) <= 1.0 <= max(x)
    return Headline(
        *sweep.interpolated(1.0 if bracketed else x[-1]),
        evaluation=at_budget,
        audit=_audit(model, sweep, calibrated, config.tolerance, bracketed),
        visited=visited,
    )


def _audit(
    model: Model, sweep: _Sweep, calibrated: float | None, tolerance: float, bracketed: bool
) -> BudgetAudit:
    """Return the measured spends, B last in the sweep, and the solved sizes."""
    solution = model.solution
    return BudgetAudit(
        target_flops=solution.target,
        own=None if solution.target == solution.budget else solution.target / solution.budget,
        capacity=solution.capacity if model.decoder.routers[-1].paths.base else None,
        expert_width=solution.expert_width or None,
        routed_layers=solution.layers,
        calibration_spend=calibrated,
        validation_spend=sweep.points[-1].spend,
        tolerance=tolerance,
        points=tuple(sorted(sweep.points, key=lambda point: point.spend)),
        headline="interpolated" if bracketed else "single",
    )


def interpolate(x: Sequence[float], y: Sequence[float], at: float) -> float:
    """Interpolate the points (x, y), in any order, piecewise linearly."""
    order = np.argsort(x)
    return float(np.interp(at, np.asarray(x)[order], np.asarray(y)[order]))


def off_budget(audit: BudgetAudit) -> str:
    """Return the reason why a row misses the budget, or an empty text.

    The calibrated spend must be within the tolerance on the calibration split. The headline must be
    at B: by interpolation, or by a spend within the tolerance for a router without a knob. A row
    with a given capacity has a budget of its own.
    """
    if audit.own is not None and abs(audit.own - 1) > audit.tolerance:
        return (
            f"costs {audit.own:.4f} of the suite's budget at its given capacity; give it the role "
            "'informed' to show it next to the ranking"
        )
    checks = {"calibration": audit.calibration_spend}
    if audit.headline == "single":
        checks["validation"] = audit.validation_spend
    for split, spend in checks.items():
        if spend is not None and abs(spend - 1) > audit.tolerance:
            return (
                f"spends {spend:.4f} of B on the {split} split; allowed is 1 ± {audit.tolerance:g}"
            )
    return ""
