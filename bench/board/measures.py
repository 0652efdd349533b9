"""Figures of a row that the board derives from its records: costs, win counts, speed to a loss."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

import numpy as np
from scipy import special

from bench.board.model import Board, Row
from bench.record import CurvePoint, Record


def active(record: Record) -> float | None:
    """Active FLOPs a token of a forward pass."""
    return record.flops.active if record.flops else None


def active_share(record: Record) -> float | None:
    """Active FLOPs a token as a share of the dense model's."""
    return record.flops.active / record.flops.dense if record.flops and record.flops.dense else None


def above_best(record: Record) -> float | None:
    """Headline loss above the least that is possible on data whose best loss is known, as a share
    of it.
    """
    return (
        record.loss / record.truth.best_loss - 1
        if record.truth and record.loss is not None
        else None
    )


def executed_share(record: Record) -> float | None:
    """Executed FLOPs a token as a share of the dense model's active ones."""
    return (
        record.flops.executed / record.flops.dense if record.flops and record.flops.dense else None
    )


def training_flops(record: Record) -> float | None:
    """FLOPs charged over the whole of training."""
    return record.flops.training_total if record.flops else None


def validation_spend(record: Record) -> float | None:
    """What the calibrated setting spends on the validation split, as a multiple of the budget."""
    return record.budget.validation_spend if record.budget else None


def latency(record: Record) -> float | None:
    """Measured time of a causal forward pass, microseconds a token."""
    return record.speed.forward_us_per_token if record.speed else None


def training_latency(record: Record) -> float | None:
    """Measured time of a training step, microseconds a token."""
    return (
        1e6 / record.training.tokens_per_second
        if record.training and record.training.tokens_per_second
        else None
    )


def from_training(name: str) -> Callable[[Record], float | None]:
    """Reader of one field of `Record.training`."""
    return lambda record: getattr(record.training, name) if record.training else None


def relative_throughput(row: Row, dense: Row | None) -> float | None:
    """Training tokens a second as a multiple of the dense bracket's."""
    mine = row.mean(from_training("tokens_per_second"))
    theirs = dense.mean(from_training("tokens_per_second")) if dense else None
    return mine / theirs if mine and theirs else None


def wins(row: Row, control: Row) -> tuple[int, int]:
    """Seeds in which `row` has the lower loss, and seeds that both have."""
    common = row.losses.keys() & control.losses.keys()
    return sum(row.losses[seed] < control.losses[seed] for seed in common), len(common)


def mean_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """T interval of the mean; NaN with fewer than two values."""
    if len(values) < 2:
        return math.nan, math.nan
    half = (
        float(special.stdtrit(len(values) - 1.0, 0.5 + level / 2))
        * stdev(values)
        / math.sqrt(len(values))
    )
    return fmean(values) - half, fmean(values) + half


def thresholds(board: Board) -> tuple[float, ...]:
    """Preset losses, nats a byte, whose cost the suite asks for."""
    return tuple(
        sorted((float(value) for value in board.config.get("thresholds") or ()), reverse=True)
    )


def cost_to_reach(
    curve: Sequence[CurvePoint], loss: float, axis: Literal["flops", "tokens"] = "flops"
) -> float | None:
    """Training FLOPs or tokens at which a curve first comes down to `loss`, linear between probes;
    None if it never does.
    """
    before: CurvePoint | None = None
    for point in curve:
        cost = float(getattr(point, axis))
        if point.loss <= loss:
            if before is None or point.loss == before.loss:
                return cost
            share = (before.loss - loss) / (before.loss - point.loss)
            return getattr(before, axis) + share * (cost - getattr(before, axis))
        before = point if math.isfinite(point.loss) else before
    return None


def mean_cost_to_reach(row: Row, loss: float) -> tuple[float | None, int]:
    """Mean of `cost_to_reach` over the seeds that reach `loss`, and how many do."""
    costs = [cost for record in row.good if (cost := cost_to_reach(record.curve, loss)) is not None]
    return (fmean(costs) if costs else None), len(costs)


@dataclass(frozen=True)
class MeanCurve:
    """Curves of several seeds on one grid.

    Mean, lowest and highest loss (nats a byte) at each x.
    """

    x: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]


def mean_curve(row: Row, axis: str, points: int = 60) -> MeanCurve:
    """Loss over `axis` ("flops", "tokens" or "seconds") on the range that all seeds cover.

    Empty without curves.
    """
    curves = [[point for point in record.curve if math.isfinite(point.loss)] for record in row.good]
    curves = [curve for curve in curves if len(curve) > 1]
    if not curves:
        return MeanCurve([], [], [], [])
    start = max(getattr(curve[0], axis) for curve in curves)
    end = min(getattr(curve[-1], axis) for curve in curves)
    grid = np.linspace(start, max(start, end), points)
    losses = np.stack(
        [
            np.interp(grid, [getattr(p, axis) for p in curve], [p.loss for p in curve])
            for curve in curves
        ]
    )
    return MeanCurve(
        grid.tolist(), losses.mean(0).tolist(), losses.min(0).tolist(), losses.max(0).tolist()
    )


def frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The (cost, loss) points that no other beats in both, by rising cost."""
    best: list[tuple[float, float]] = []
    for cost, loss in sorted(points):
        if not best or loss < best[-1][1]:
            best.append((cost, loss))
    return best


def domain_losses(row: Row) -> dict[str, float]:
    """Domain -> mean loss over the seeds, nats a byte."""
    names = sorted(
        {
            name
            for record in row.good
            for name, loss in record.domain_loss.items()
            if math.isfinite(loss)
        }
    )
    means = {
        name: row.mean(lambda record, name=name: record.domain_loss.get(name)) for name in names
    }
    return {name: mean for name, mean in means.items() if mean is not None}
