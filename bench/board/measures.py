"""Derive the figures of a row from its records: costs, win counts, speed to a loss."""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import fmean, stdev, variance
from typing import Literal

from scipy import special

from bench.board.model import Board, Row
from bench.record import CurvePoint, Record


def active_flops(record: Record) -> float | None:
    """Return the active FLOPs a token of a forward pass."""
    return record.flops.active if record.flops else None


def active_share(record: Record) -> float | None:
    """Return the active FLOPs a token as a share of the dense model's."""
    return record.flops.active / record.flops.dense if record.flops and record.flops.dense else None


def above_best(record: Record) -> float | None:
    """Return the excess of the headline loss over the best possible loss, as a share of the latter.

    None for data whose best loss is not known.
    """
    return (
        record.loss / record.truth.best_loss - 1
        if record.truth and record.loss is not None
        else None
    )


def executed_share(record: Record) -> float | None:
    """Return the executed FLOPs a token as a share of the dense model's active ones."""
    return (
        record.flops.executed / record.flops.dense if record.flops and record.flops.dense else None
    )


def training_flops(record: Record) -> float | None:
    """Return the FLOPs charged over the whole of training."""
    return record.flops.training_total if record.flops else None


def validation_spend(record: Record) -> float | None:
    """Return the spend of the calibrated setting on the validation split, in multiples of B."""
    return record.budget.validation_spend if record.budget else None


def latency(record: Record) -> float | None:
    """Return the measured time of a causal forward pass, microseconds a token."""
    return record.speed.forward_us_per_token if record.speed else None


def training_latency(record: Record) -> float | None:
    """Return the measured time of a training step, microseconds a token."""
    return (
        1e6 / record.training.tokens_per_second
        if record.training and record.training.tokens_per_second
        else None
    )


def field_of(part: str, name: str) -> Callable[[Record], float | None]:
    """Return a reader of one field of a part of the record, such as `training`."""
    return lambda record: getattr(getattr(record, part), name, None)


def from_training(name: str) -> Callable[[Record], float | None]:
    """Return a reader of one field of `Record.training`."""
    return field_of("training", name)


def relative_throughput(row: Row, dense: Row | None) -> float | None:
    """Return the training tokens a second as a multiple of the dense bracket's."""
    mine = row.mean(from_training("tokens_per_second"))
    theirs = dense.mean(from_training("tokens_per_second")) if dense else None
    return mine / theirs if mine and theirs else None


def wins(row: Row, control: Row) -> tuple[int, int]:
    """Count the seeds in which `row` has the lower loss, and the seeds that both have."""
    common = row.losses.keys() & control.losses.keys()
    return sum(row.losses[seed] < control.losses[seed] for seed in common), len(common)


def router_seed_sd(row: Row) -> float | None:
    """Return the SD of the loss between router seeds within a seed, pooled, nats a byte.

    None for a row with one router seed.
    """
    found: dict[int, list[float]] = defaultdict(list)
    for record in row.good:
        if record.cell.seed in row.losses and record.loss is not None:
            found[record.cell.seed].append(record.loss)
    # Variances average; their root is the pooled SD.
    several = [variance(losses) for losses in found.values() if len(losses) > 1]
    return math.sqrt(fmean(several)) if several else None


def mean_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Return the t interval of the mean; NaN with fewer than two values."""
    if len(values) < 2:
        return math.nan, math.nan
    half = (
        float(special.stdtrit(len(values) - 1.0, 0.5 + level / 2))
        * stdev(values)
        / math.sqrt(len(values))
    )
    return fmean(values) - half, fmean(values) + half


def thresholds(board: Board) -> tuple[float, ...]:
    """Return the preset losses, nats a byte, whose cost the suite asks for; easiest first."""
    return tuple(
        sorted((float(value) for value in board.config.get("thresholds") or ()), reverse=True)
    )


def cost_to_reach(
    curve: Sequence[CurvePoint], loss: float, axis: Literal["flops", "tokens", "seconds"] = "flops"
) -> float | None:
    """Return the training FLOPs, tokens or seconds at which a curve first reaches `loss`.

    Linear between probes. None if the curve stays above it. NaN if the curve's times are unknown.
    """
    before: CurvePoint | None = None
    for point in curve:
        cost = float(getattr(point, axis))
        if point.loss <= loss:
            if before is None or point.loss == before.loss:
                return cost
            # Between the last probe above the loss and this one, on a straight line.
            share = (before.loss - loss) / (before.loss - point.loss)
            return getattr(before, axis) + share * (cost - getattr(before, axis))
        # A probe without a finite loss is no end of a line.
        before = point if math.isfinite(point.loss) else before
    return None


def mean_cost_to_reach(row: Row, loss: float) -> tuple[float | None, int]:
    """Average `cost_to_reach` over the runs that reach `loss`, and count these runs."""
    costs = [cost for record in row.good if (cost := cost_to_reach(record.curve, loss)) is not None]
    return (fmean(costs) if costs else None), len(costs)


def frontier(points: Sequence[tuple[float, float]], same: float = 0.0) -> list[tuple[float, float]]:
    """Find the (cost, loss) points that no other beats in both, by rising cost.

    Args:
        points: (cost, loss) of each row; costs are positive where `same` is.
        same: share within which two costs count as equal, so that of rows of equal cost the best
            stands alone.
    """
    best: list[tuple[float, float]] = []
    # From the lowest loss upwards, a point must be cheaper than every better one.
    for loss, cost in sorted({(loss, cost) for cost, loss in points}):
        if not best or cost < best[-1][0] * (1 - same):
            best.append((cost, loss))
    return best[::-1]


def positive(text: str) -> float | None:
    """Read a factor written as digits, `0.5` or `1e-3`; None if it is no positive number."""
    # `float` would also read "nan", "inf" and "1_0".
    if not re.fullmatch(r"\d+(\.\d+)?(e[+-]?\d+)?", text):
        return None
    value = float(text)
    return value if 0 < value < math.inf else None
