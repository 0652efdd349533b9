"""Draw the figures of single layers: loads of paths, and routing over training."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench.board.frames import tidy
from bench.board.model import Board, Row
from bench.board.text import percent
from bench.figures.charts import ROW, heat
from bench.figures.drawing import WIDTH, Figure, colour, subplots, tip
from bench.figures.labels import key_below, short_names
from bench.figures.lines import Look, series
from bench.record import LayerMonitor

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

MOST_ROWS = 24
"""Rows of a heat map of loads. Each router's own section has the rest."""

LEAST_CHANGE = 0.01
"""Change over training of the share of tokens on several experts that is worth a figure."""


def loads(board: Board) -> list[Figure]:
    """Show the share of tokens on each path: by layer and expert, and for gates by layer."""
    # Loads of random controls are even by construction, and a twin repeats its router.
    routers = [row for row in board.ranked if row.role == "ranked"]
    rows = (*routers, *board.informed)[:MOST_ROWS]
    frame = tidy((record for row in rows for record in row.good), "loads")
    if frame.empty:
        return []
    keys = ["row", "layer", "index"]
    data = frame.groupby(keys, sort=False)["load"].mean().reset_index()
    # A row with two paths is a gate, and its second path is the upgrade.
    paths = data.groupby("row")["index"].transform("max") + 1
    gates = data[(paths == 2) & (data["index"] == 1)].drop(columns="index")
    experts = data[paths > 2]
    made: list[Figure] = []
    if len(experts):
        words = (
            "Share of tokens on each expert, by router and layer, mean over seeds; the stronger "
            "the colour the larger the share, up to twice an even one. Shares add up to more than "
            "100 % where a token takes several experts."
        )
        made.append(Figure("load-experts", "Load by layer and expert", words, experts, _experts))
    if len(gates):
        words = (
            "Share of tokens on the upgraded path, by router and layer, mean over seeds; the "
            "stronger the colour the larger the share."
        )
        made.append(Figure("load-gates", "Upgraded tokens by layer", words, gates, _gates))
    return made


def _experts(data: "pd.DataFrame") -> "Canvas":
    wide = data.pivot(index=["row", "layer"], columns="index", values="load")
    wide = wide.reindex(list(dict.fromkeys(zip(data["row"], data["layer"], strict=True))))
    # A name stands once, at the first of its layers.
    shown, before = short_names(list(dict.fromkeys(data["row"]))), ""
    names: list[str] = []
    for row, layer in wide.index:
        names.append(f"{shown[row] + ', ' if row != before else ''}layer {layer}")
        before = row
    # The mean is more than 1 / experts if a token takes several.
    even = wide.mean(axis=1)
    canvas, (axes,) = subplots(250 + 46 * max(6, len(wide.columns)), 80 + ROW * len(wide))
    columns = [str(index) for index in wide.columns]
    heat(axes, wide.div(2 * even, axis=0), 100 * wide, ".1f", names, columns)
    axes.set_title("share of tokens on each expert, %", loc="right")
    for end in range(1, len(names)):
        if wide.index[end][0] != wide.index[end - 1][0]:
            axes.axhline(end, color=colour("muted"), linewidth=1)
    return canvas


def _gates(data: "pd.DataFrame") -> "Canvas":
    wide = data.pivot(index="row", columns="layer", values="load")
    wide = wide.reindex(list(dict.fromkeys(data["row"])))
    canvas, (axes,) = subplots(240 + 72 * max(4, len(wide.columns)), 80 + ROW * len(wide))
    names = list(short_names(list(wide.index)).values())
    heat(axes, wide, 100 * wide, ".1f", names, [f"layer {at}" for at in wide.columns])
    axes.set_title("share of tokens on the upgraded path, %", loc="right")
    return canvas


def settling(row: Row) -> list[Figure]:
    """Show how early one router settles, and the gradients of router and paths, by layer."""
    data = _over_training(
        row,
        lambda monitor: {
            "choices": (*monitor.saturation, 1.0) if monitor.saturation else (),
            "router": monitor.router_gradient,
            "paths": monitor.paths_gradient,
        },
    )
    if data.empty:
        return []
    # A logarithmic axis has no place for a gradient of 0.
    data = data[(data["part"] == "choices") | (data["value"] > 0)]
    words = (
        "Left: share of the final choices on the probe that the router had made already, over "
        "training; a router that settles before the paths have learnt anything has chosen blindly. "
        "Right: L2 norm of the gradient of the router and of the paths that it chooses among, in "
        "the step before each probe and before any clipping. Means over seeds."
    )
    return [Figure("settling", "How routing settles", words, data, _settling, _ends(data))]


def several(row: Row) -> list[Figure]:
    """Show the share of tokens on several experts over training, by layer.

    There is no figure if tokens take equally many experts, or if the share stays as it is.
    """
    data = _over_training(row, lambda monitor: {"several": monitor.several})
    layers = data.groupby("layer")["value"]
    if data.empty or (layers.max() - layers.min()).max() < LEAST_CHANGE:
        return []
    words = (
        "Share of tokens that take more than one expert, at each probe of training, by layer; "
        "experts that every token takes do not count. Means over seeds."
    )
    title = "Tokens on several experts"
    return [Figure("several", title, words, data, _several, _ends(data))]


def _over_training(
    row: Row, read: Callable[[LayerMonitor], Mapping[str, Sequence[float]]]
) -> "pd.DataFrame":
    """Return values of a row over training, means over seeds.

    Args:
        row: the row.
        read: returns part -> its values, one for each probe, from the monitor of a layer.

    Returns:
        The columns layer, part, training (its share, from 0 to 1) and value.
    """
    import pandas as pd

    points = [
        (monitor.layer, part, (place + 1) / len(values), value)
        for record in row.good
        for monitor in record.monitors
        for part, values in read(monitor).items()
        for place, value in enumerate(values)
        if math.isfinite(value)
    ]
    keys = ["layer", "part", "training"]
    frame = pd.DataFrame(points, columns=[*keys, "value"])
    return frame.groupby(keys, sort=False)["value"].mean().reset_index()


def _ends(data: "pd.DataFrame") -> "pd.DataFrame":
    """Return the first and the last value of each layer and part."""
    values = data.groupby(["layer", "part"], sort=False)["value"]
    return values.agg(["first", "last"]).reset_index()


def _several(data: "pd.DataFrame") -> "Canvas":
    from matplotlib.lines import Line2D

    canvas, (axes,) = subplots(WIDTH, 320)
    shades = _looks_of(data)
    for layer, one in data.groupby("layer"):
        every = max(1, len(one) // 4)
        axes.plot(one["training"], one["value"], **shades[layer].line, markevery=every)
        tip(axes.lines[-1], f"layer {layer}: {percent(one['value'].iloc[-1])} in the end")
    axes.set(ylabel="share of tokens", ylim=(0, None))
    # Without steps of 2.5, which whole percents cannot name.
    axes.locator_params(axis="y", nbins=6, steps=[1, 2, 5, 10])
    axes.yaxis.set_major_formatter(lambda value, _: percent(value, 0))
    _share_of_training(axes)
    keys = [Line2D([], [], **look.line) for look in shades.values()]
    key_below(axes, keys, [f"layer {layer}" for layer in shades])
    return canvas


def _looks_of(data: "pd.DataFrame") -> dict[Any, Look]:
    """Return the look of each layer."""
    layers = sorted(data["layer"].unique().tolist())
    return {layer: series(place) for place, layer in enumerate(layers)}


def _share_of_training(axes: "Axes") -> None:
    axes.set(xlabel="share of training", xlim=(0, 1))
    axes.locator_params(axis="x", nbins=4)
    axes.xaxis.set_major_formatter(lambda value, _: percent(value, 0))


def _settling(data: "pd.DataFrame") -> "Canvas":
    from matplotlib.lines import Line2D

    canvas, (left, right) = subplots(WIDTH, 320, 2)
    shades = _looks_of(data)
    for (layer, part), one in data.groupby(["layer", "part"], sort=True):
        # Both gradients of a layer have its colour and dashes; those of the paths are hollow.
        look = replace(shades[layer], hollow=part == "paths")
        axes = left if part == "choices" else right
        axes.plot(one["training"], one["value"], **look.line, markevery=max(1, len(one) // 4))
        tip(axes.lines[-1], f"layer {layer}, {part}")
    left.set(ylim=(0, 1.02), ylabel="share of final choices")
    right.set(ylabel="norm of the gradient")
    if (data["part"] != "choices").any():
        right.set_yscale("log")
        for which in (right.yaxis.set_major_formatter, right.yaxis.set_minor_formatter):
            which(lambda value, _: f"{value:.2g}")
    for axes in (left, right):
        _share_of_training(axes)
    kinds = {"router": Look("ink", marker="o"), "paths": Look("ink", marker="o", hollow=True)}
    keys = [Line2D([], [], **look.line) for look in shades.values()]
    keys += [Line2D([], [], **look.point) for look in kinds.values()]
    key_below(right, keys, [*(f"layer {layer}" for layer in shades), *kinds])
    return canvas
