"""Figures with an x and a y: loss against cost, spend and learning rate."""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from statistics import fmean

from bench.board import measures
from bench.board.model import Board, Row
from bench.board.plot import Plot, styles
from bench.board.svg import Figure, padded
from bench.board.text import BITS, number, percent, quantity
from bench.record import Record

_AXES = (
    ("flops", "training FLOPs"),
    ("tokens", "training tokens"),
    ("seconds", "wall-clock seconds of training"),
)
_LOSS = "bits per byte"

_whole_percent = partial(percent, digits=0)


def loss_curves(board: Board) -> list[Figure]:
    """Causal loss on the probe against training FLOPs, tokens and wall-clock.

    Mean of the seeds and their range.
    """
    return [figure for axis, label in _AXES if (figure := _loss_curve(board, axis, label))]


def _loss_curve(board: Board, axis: str, label: str) -> Figure | None:
    curves = {row.name: measures.mean_curve(row, axis) for row in (*board.ranked, *board.brackets)}
    curves = {name: curve for name, curve in curves.items() if curve.x}
    if not curves:
        return None
    description = (
        f"Loss on a fixed part of the validation split during training against {label}, a line a row: the mean over seeds, and a band from "
        "the best to the worst seed. Dashed: controls; dotted: brackets. The early part above the frame is cut off."
    )
    shown = [
        BITS * curve.mean[index]
        for curve in curves.values()
        for index in (2 * len(curve.mean) // 5, -1)
    ]
    reach = max(curve.x[-1] for curve in curves.values())
    plot = Plot(
        f"Loss against {label}",
        description,
        (0, reach),
        padded(shown, 0.04),
        (label, _LOSS),
        quantity,
    )
    for limit in measures.thresholds(board):
        plot.limit(BITS * limit, number(BITS * limit, 2))
    classes = styles(board)
    for name in sorted(curves, key=lambda name: classes[name] != "faint"):
        mean, low, high = (
            [BITS * loss for loss in side]
            for side in (curves[name].mean, curves[name].low, curves[name].high)
        )
        plot.curve(name, curves[name].x, mean, classes[name], (low, high))
    data = [
        (name, quantity(curve.x[-1]), number(BITS * curve.mean[-1]))
        for name, curve in curves.items()
    ]
    return plot.figure(f"loss-{axis}", ("router", f"last {label}", "loss there"), data)


def pareto(board: Board) -> list[Figure]:
    """Headline loss against inference FLOPs and against measured time a token, with the frontier.

    The time is that of inference; of training, where some row has no other.
    """
    timed = all(
        row.mean(measures.latency) is not None
        for row in (*board.ranked, *board.brackets, *board.other_budgets)
    )
    label, read = (
        ("token of inference", measures.latency)
        if timed
        else ("training token", measures.training_latency)
    )
    found = (
        _pareto(
            board,
            "pareto-flops",
            "inference FLOPs a token, share of dense",
            measures.active_share,
            _whole_percent,
        ),
        _pareto(board, "pareto-latency", f"measured time a {label}, µs", read, quantity),
    )
    return [figure for figure in found if figure]


def _pareto(
    board: Board,
    slug: str,
    label: str,
    read: Callable[[Record], float | None],
    show: Callable[[float], str],
) -> Figure | None:
    rows = (*board.ranked, *board.brackets, *board.other_budgets)
    points = [
        (row, x, BITS * loss)
        for row in rows
        if (x := row.mean(read)) is not None and (loss := row.shown_loss) is not None
    ]
    if len(points) < 2:
        return None
    description = f"Headline loss of each row against {label}; lower left is better. The line joins rows that no other beats in both."
    spans = padded([x for _, x, _ in points]), padded([y for _, _, y in points])
    plot = Plot(f"Loss against {label}", description, *spans, (label, _LOSS), show)
    steps = _stairs(measures.frontier([(x, y) for _, x, y in points]))
    plot.canvas.path([(plot.x(x), plot.y(y)) for x, y in steps], "curve muted")
    classes = styles(board)
    for row, x, y in points:
        look = classes[row.name].split()[0] if row not in board.other_budgets else "faint"
        group = plot.canvas.group(look, f"{row.name}: {show(x)}, {number(y)} bits per byte")
        plot.canvas.circle(
            plot.x(x),
            plot.y(y),
            3 if look == "faint" else 4.5,
            "small" if look == "faint" else "dot",
            group,
        )
        if look != "faint":
            plot.label(plot.y(y), row.name, look)
    return plot.figure(
        slug, ("router", label, _LOSS), [(row.name, show(x), number(y)) for row, x, y in points]
    )


def _stairs(best: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    steps = [best[0]]
    for x, y in best[1:]:
        steps += [(x, steps[-1][1]), (x, y)]
    return steps


def spend_sweep(board: Board) -> list[Figure]:
    """Loss against what causal evaluation spends around the budget, from the knob sweep."""
    sweeps = {row.name: sweep for row in board.ranked if len(sweep := _mean_sweep(row)) > 1}
    if not sweeps:
        return []
    description = (
        "Loss on the validation split when the knob makes evaluation spend more or less than the budget, mean over seeds. The headline is "
        "read at 100 %, so a calibration that drifts moves nobody's score."
    )
    points = [(name, spend, BITS * loss) for name, sweep in sweeps.items() for spend, loss in sweep]
    spans = padded([spend for _, spend, _ in points]), padded([loss for _, _, loss in points])
    labels = ("spend, share of the budget", _LOSS)
    plot = Plot("Loss against spend around the budget", description, *spans, labels, _whole_percent)
    plot.limit(1.0, "the budget", "x")
    classes = styles(board)
    for name in sorted(sweeps, key=lambda name: classes[name] != "faint"):
        plot.curve(
            name,
            [spend for spend, _ in sweeps[name]],
            [BITS * loss for _, loss in sweeps[name]],
            classes[name],
        )
    return [
        plot.figure(
            "spend",
            ("router", "spend", _LOSS),
            [(name, percent(spend, 2), number(loss)) for name, spend, loss in points],
        )
    ]


def _mean_sweep(row: Row) -> list[tuple[float, float]]:
    """Mean spend and loss at each knob setting that every seed has."""
    by_target: dict[float, list[tuple[float, float]]] = defaultdict(list)
    for record in row.good:
        for point in record.budget.points if record.budget else ():
            if math.isfinite(point.loss):
                by_target[point.target].append((point.spend, point.loss))
    whole = [pairs for pairs in by_target.values() if len(pairs) == len(row.good)]
    return sorted(
        (fmean(spend for spend, _ in pairs), fmean(loss for _, loss in pairs)) for pairs in whole
    )


def sensitivity(board: Board) -> list[Figure]:
    """Loss of each row against a factor on its learning rate, on seeds that no ranking uses."""
    by_row: dict[str, dict[float, float]] = defaultdict(dict)
    for row in board.sensitivity:
        name, _, factor = row.name.rpartition("@lr")
        if (
            (loss := row.shown_loss) is not None
            and re.fullmatch(r"\d+(\.\d+)?(e[+-]?\d+)?", factor)
            and 0 < float(factor) < math.inf
        ):
            by_row[name][float(factor)] = loss
    lines = {
        name: dict(sorted(by_row[name].items())) for name in sorted(by_row) if len(by_row[name]) > 1
    }
    if not lines:
        return []
    description = (
        "Loss of each row above its own best, against a factor on all its learning rates (logarithmic), on seeds that the ranking does not "
        "use. A row whose lowest point is not at 1× was held back by the shared recipe."
    )
    above = {
        name: [BITS * (loss - min(line.values())) for loss in line.values()]
        for name, line in lines.items()
    }
    powers = {name: [math.log2(factor) for factor in line] for name, line in lines.items()}
    spans = (
        padded([x for xs in powers.values() for x in xs]),
        padded([y for ys in above.values() for y in ys]),
    )
    labels = ("factor on the learning rate", "bits per byte above own best")
    plot = Plot("Sensitivity to the learning rate", description, *spans, labels, _factor)
    classes = styles(board)
    for name in lines:
        plot.curve(name, powers[name], above[name], classes.get(name, "faint"))
    data = [
        (name, f"{factor:g}×", number(BITS * loss))
        for name, line in lines.items()
        for factor, loss in line.items()
    ]
    return [plot.figure("learning-rate", ("router", "factor", _LOSS), data)]


def _factor(power: float) -> str:
    return f"{2**power:.3g}×"
