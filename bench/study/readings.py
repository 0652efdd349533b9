"""Read the numbers of studies from one record."""

import math
from collections.abc import Callable, Iterable
from statistics import fmean, pstdev
from typing import Literal

from bench.record import LayerMonitor, Record

Reading = Callable[[Record], float | None]


def probes(record: Record) -> list[float]:
    """Return the losses of the probes, nats; a run that diverged may have some without one."""
    return [point.loss for point in record.curve if math.isfinite(point.loss)]


def training_cost(record: Record) -> float | None:
    """Return the charged training FLOPs over those of the full-only model on as many tokens.

    The full-only model gets the run's own ratio of backward to forward FLOPs: 2 in `joint`, less
    on a frozen backbone.
    """
    if record.flops is None or record.training is None or not record.training.tokens:
        return None
    # Routers and labels are left out: the ratio describes backbone and paths.
    forward, backward = (
        sum(record.flops.training.get(f"{part}/{phase}", 0.0) for part in ("backbone", "paths"))
        for phase in _PHASES
    )
    full_only = (
        record.flops.dense * (1 + backward / forward) * record.training.tokens if forward else 0.0
    )
    return record.flops.training_total / full_only if full_only else None


_PHASES = ("forward", "backward")


def ideal_cost(record: Record) -> float | None:
    """Return `training_cost` as if training ran each token as sparsely as evaluation does.

    Labels and losses stay as charged.
    """
    if record.flops is None or not (executed := training_cost(record)):
        return None
    # Replace the charged passes by the active FLOPs of evaluation, and keep all other charges.
    parts = ("backbone/", "paths/", "router/forward", "router/backward")
    passes = sum(flops for part, flops in record.flops.training.items() if part.startswith(parts))
    return (
        executed * (1 - passes / record.flops.training_total)
        + record.flops.active / record.flops.dense
    )


def share_of(*components: str) -> Reading:
    """Return a reader for the share of the training FLOPs of some components."""

    def share(record: Record) -> float | None:
        if record.flops is None or not record.flops.training_total:
            return None
        # Charges are named component/phase, for example paths/backward.
        spent = sum(
            flops
            for part, flops in record.flops.training.items()
            if part.split("/")[0] in components
        )
        return spent / record.flops.training_total

    return share


def over_layers(read: Callable[[LayerMonitor], float | None]) -> Reading:
    """Return a reader for the mean over the routed layers that have the figure."""

    def mean(record: Record) -> float | None:
        return mean_of(read(monitor) for monitor in record.monitors)

    return mean


def finite(value: float | None) -> float | None:
    """Return a number that is finite; None for NaN, such as a time on another processor."""
    return value if value is not None and math.isfinite(value) else None


def several_in(layer: int) -> Reading:
    """Return a reader for the share of tokens of one layer on several experts, at the last probe.

    A mean over the layer's sites; None if all tokens take equally many.
    """
    return lambda record: mean_of(
        monitor.several[-1]
        for monitor in record.monitors
        if monitor.layer == layer and monitor.several
    )


def mean_of(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that exist and are finite."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    return fmean(known) if known else None


def load_cv(monitor: LayerMonitor) -> float | None:
    """Return the coefficient of variation of the paths' loads."""
    load = monitor.chosen_load
    mean = fmean(load)
    return pstdev(load) / mean if mean else None


def right_paths(name: Literal["accuracy", "chance"]) -> Reading:
    """Return a reader for the mean over the routed sites of a figure of `Record.truth`."""
    return lambda record: mean_of(getattr(record.truth, name)) if record.truth else None


def as_told(name: Literal["supervised", "unsupervised"]) -> Reading:
    """Return a reader for the mean over the routed sites of a figure of `Record.supervision`."""
    return lambda record: mean_of(getattr(monitor, name) for monitor in record.supervision)
