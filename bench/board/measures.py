"""Figures of a row that the board derives from its records: costs, win counts, speed to a loss."""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import fmean, stdev, variance
from typing import Literal

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


def router_seed_sd(row: Row) -> float | None:
    """SD of the headline loss between router seeds within a seed, pooled over seeds, nats a byte.

    None for a row with one router seed.
    """
    found: dict[int, list[float]] = defaultdict(list)
    for record in row.good:
        if record.cell.seed in row.losses and record.loss is not None:
            found[record.cell.seed].append(record.loss)
    several = [variance(losses) for losses in found.values() if len(losses) > 1]
    return math.sqrt(fmean(several)) if several else None


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
    if not re.fullmatch(r"\d+(\.\d+)?(e[+-]?\d+)?", text):
        return None
    value = float(text)
    return value if 0 < value < math.inf else None
