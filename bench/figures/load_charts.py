"""Draw the figures of single layers: loads of paths, and how routing settles."""

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from bench.board.frames import tidy
from bench.board.model import Board, Row
from bench.board.text import percent
from bench.figures.charts import ROW, heat
from bench.figures.drawing import WIDTH, Figure, colour, subplots, tip
from bench.figures.labels import key_below, short_names
from bench.figures.lines import Look, series

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Canvas

MOST_ROWS = 24
"""Rows of a heat map of loads. Each router's own section has the rest."""


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
    import pandas as pd

    points = [
        {"layer": monitor.layer, "part": part, "seed": record.cell.seed,
         "training": (place + 1) / len(values), "value": value}
        for record in row.good
        for monitor in record.monitors
        for part, values in (
            ("choices", (*monitor.saturation, 1.0) if monitor.saturation else ()),
            ("router", monitor.router_gradient),
            ("paths", monitor.paths_gradient),
        )
        for place, value in enumerate(values)
        if math.isfinite(value)
    ]  # fmt: skip
    if not points:
        return []
    frame = pd.DataFrame(points)
    keys = ["layer", "part", "training"]
    data = frame.groupby(keys, sort=False)["value"].mean().reset_index()
    # A logarithmic axis has no place for a gradient of 0.
    data = data[(data["part"] == "choices") | (data["value"] > 0)]
    last = data.groupby(["layer", "part"], sort=False).last().reset_index()
    first = data.groupby(["layer", "part"], sort=False)["value"].first().to_numpy()
    shown = last.drop(columns="training").rename(columns={"value": "last"})
    shown.insert(2, "first", first)
    words = (
        "Left: share of the final choices on the probe that the router had made already, over "
        "training; a router that settles before the paths have learnt anything has chosen blindly. "
        "Right: L2 norm of the gradient of the router and of the paths that it chooses among, in "
        "the step before each probe and before any clipping. Means over seeds."
    )
    return [Figure("settling", "How routing settles", words, data, _settling, shown)]


def _settling(data: "pd.DataFrame") -> "Canvas":
    from matplotlib.lines import Line2D

    canvas, (left, right) = subplots(WIDTH, 320, 2)
    layers = sorted(data["layer"].unique())
    shades = {layer: series(place) for place, layer in enumerate(layers)}
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
        axes.set(xlabel="share of training", xlim=(0, 1))
        axes.locator_params(axis="x", nbins=4)
        axes.xaxis.set_major_formatter(lambda value, _: percent(value, 0))
    kinds = {"router": Look("ink", marker="o"), "paths": Look("ink", marker="o", hollow=True)}
    keys = [Line2D([], [], **look.line) for look in shades.values()]
    keys += [Line2D([], [], **look.point) for look in kinds.values()]
    key_below(right, keys, [*(f"layer {layer}" for layer in layers), *kinds])
    return canvas
