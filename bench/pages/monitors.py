"""Show how well routers do apart from their loss.

Balance, confidence, stability and gradients come from their plans and scores.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev

from bench.board.columns import Column, TableCell, with_values
from bench.board.model import Board, Row
from bench.board.text import number, percent, quantity
from bench.record import LayerMonitor

DEAD = 0.01
"""A path is dead if its load is below this share of the mean load."""


@dataclass(frozen=True)
class Monitor:
    """One figure of a routed layer.

    Attributes:
        title: heading of its column.
        meaning: its definition and its unit.
        read: reads it from a layer of one record; None where it was not or cannot be measured.
        show: writes it as text.
    """

    title: str
    meaning: str
    read: Callable[[LayerMonitor], float | None]
    show: Callable[[float | None], str] = number


def load_cv(load: Sequence[float]) -> float | None:
    """Return the coefficient of variation of the load over paths.

    None for gates, which are not meant to be balanced, and without any load.
    """
    # Two paths are a gate: execute the layer or skip it.
    return pstdev(load) / fmean(load) if len(load) > 2 and any(load) else None


def max_violation(load: Sequence[float]) -> float | None:
    """Return MaxVio, the largest load over the mean load, minus 1; None as for `load_cv`.

    Source: arXiv:2408.15664, section 4.
    """
    return max(load) / fmean(load) - 1 if len(load) > 2 and any(load) else None


def purity(layer: LayerMonitor) -> float | None:
    """Return the share of the choices of a path that are of its most frequent domain.

    It is a mean over paths by load. Domains count alike. None as for `load_cv`.
    """
    loads = [
        [load for name, load in zip(layer.paths, loads, strict=True) if name not in layer.always]
        for loads in layer.load_by_domain.values()
    ]
    total = sum(map(sum, loads))
    # Two paths are a gate, whose full path no domain should own.
    return (
        sum(map(max, zip(*loads, strict=True))) / total
        if total and len(loads) > 1 and len(loads[0]) > 2
        else None
    )


def dead_paths(load: Sequence[float]) -> float | None:
    """Count the paths that take next to no tokens; None where there is no choice."""
    return float(sum(share <= DEAD * fmean(load) for share in load)) if len(load) > 1 else None


def _last(values: Sequence[float]) -> float | None:
    return values[-1] if values else None


def _short(value: float | None) -> str:
    return quantity(value, 2)


MONITORS = (
    Monitor(
        "load CV",
        "coefficient of variation of the load over paths",
        lambda layer: load_cv(layer.chosen_load),
    ),
    Monitor(
        "MaxVio",
        "most tokens of an expert over the mean number, minus 1 (0 is balanced); a token of merged "
        "experts counts on the heaviest, or on the first of equal ones",
        lambda layer: max_violation(layer.chosen_load),
        lambda value: number(value, 2),
    ),
    Monitor(
        "dead",
        "paths that take less than 1 % of an even share",
        lambda layer: dead_paths(layer.chosen_load),
        lambda value: number(value, 1),
    ),
    Monitor("dropped", "tokens that took no path", lambda layer: layer.dropped, percent),
    Monitor(
        "several at first",
        "tokens on more than one expert at the first probe of training",
        lambda layer: next(iter(layer.several), None),
        percent,
    ),
    Monitor(
        "several in the end",
        "the same at the last probe",
        lambda layer: _last(layer.several),
        percent,
    ),
    Monitor("entropy", "of softmax(scores), nats", lambda layer: layer.entropy),
    Monitor("margin", "mean distance of the two most probable paths", lambda layer: layer.margin),
    Monitor(
        "max logit",
        "largest score of any token and path",
        lambda layer: layer.max_logit,
        lambda value: number(value, 2),
    ),
    Monitor(
        "churn",
        "tokens that changed paths between the last two probes of training",
        lambda layer: layer.churn,
        percent,
    ),
    Monitor(
        "saturation",
        "of the final choices, those made by the first probe",
        lambda layer: next(iter(layer.saturation), None),
        percent,
    ),
    Monitor(
        "router gradient",
        "norm before the last probe",
        lambda layer: _last(layer.router_gradient),
        _short,
    ),
    Monitor(
        "paths gradient",
        "norm before the last probe",
        lambda layer: _last(layer.paths_gradient),
        _short,
    ),
    Monitor(
        "domain information",
        "mutual information of path set and domain, nats",
        lambda layer: layer.domain_information,
    ),
    Monitor(
        "purity",
        "share of an expert's tokens that are of its most frequent domain",
        purity,
        percent,
    ),
    Monitor(
        "co-activation",
        "share of an expert's tokens that also take its most frequent partner",
        lambda layer: layer.co_activation,
        percent,
    ),
    Monitor(
        "utility correlation",
        "rank correlation of score and oracle utility",
        lambda layer: layer.utility_correlation,
    ),
    Monitor(
        "the same in use",
        "with later layers routed as in use",
        lambda layer: layer.on_policy_correlation,
    ),
    Monitor(
        "latent variance",
        "of predicted latents of length 1; 0 where they have collapsed",
        lambda layer: layer.latent_variance,
    ),
    Monitor("latent rank", "effective rank of predicted latents", lambda layer: layer.latent_rank),
)


def layers_of(row: Row) -> list[list[LayerMonitor]]:
    """Return the monitors of each site over the seeds that have the paths of the first seed."""
    found: dict[tuple[int, int], list[LayerMonitor]] = {}
    for record in row.good:
        for place, monitor in enumerate(record.monitors):
            # A layer with two sites has two monitors, always in the same order.
            before = [other.layer for other in record.monitors[:place]]
            same = found.setdefault((monitor.layer, before.count(monitor.layer)), [])
            # Loads average path by path, so the paths must be the same.
            if not same or same[0].paths == monitor.paths:
                same.append(monitor)
    return [found[site] for site in sorted(found)]


def _mean(monitor: Monitor, layers: Iterable[LayerMonitor]) -> float | None:
    values = [
        value
        for layer in layers
        if (value := monitor.read(layer)) is not None and math.isfinite(value)
    ]
    return fmean(values) if values else None


def monitor_columns(board: Board) -> list[Column]:
    """Return a column for each monitor that some row has, a mean over layers and seeds."""

    def read(monitor: Monitor) -> Callable[[Row], TableCell]:
        def cell(row: Row) -> TableCell:
            value = _mean(monitor, (layer for layers in layers_of(row) for layer in layers))
            return TableCell(monitor.show(value), value)

        return cell

    columns = [Column(monitor.title, monitor.meaning, read(monitor)) for monitor in MONITORS]
    return with_values(columns, board.rows)


def layer_table(row: Row) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the heading and the lines of a table with a line a routed layer.

    The columns are its monitors and the load of each path, mean over seeds.
    """
    layers = layers_of(row)
    shown = [
        monitor for monitor in MONITORS if any(_mean(monitor, same) is not None for same in layers)
    ]
    lines: list[tuple[str, ...]] = []
    for same in layers:
        loads = [
            fmean(monitor.load[path] for monitor in same) for path in range(len(same[0].paths))
        ]
        shares = ", ".join(
            f"{name} {percent(load)}" for name, load in zip(same[0].paths, loads, strict=True)
        )
        lines.append(
            (str(same[0].layer), *(monitor.show(_mean(monitor, same)) for monitor in shown), shares)
        )
    return ("layer", *(monitor.title for monitor in shown), "load"), lines
