"""Draw the figures of single layers: loads of paths, and how routing settles."""

import math
from typing import TYPE_CHECKING

from bench.board.charts import ROW, heat
from bench.board.drawing import Figure, colour, subplots
from bench.board.frames import tidy
from bench.board.model import Board, Row
from bench.board.text import percent, plain

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Canvas

MOST_ROWS = 24
"""Rows of a heat map of loads. Each router's own section has the rest."""


def loads(board: Board) -> list[Figure]:
    """Show the share of tokens on each path: by layer and expert, and for gates by layer."""
    rows = (*board.ranked, *board.informed)[:MOST_ROWS]
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
    names = [f"{plain(row, 22)} · {layer}" for row, layer in wide.index]
    # The mean is more than 1 / experts if a token takes several.
    even = wide.mean(axis=1)
    canvas, (axes,) = subplots(200 + 56 * max(6, len(wide.columns)), 80 + ROW * len(wide))
    columns = [str(index) for index in wide.columns]
    heat(axes, wide.div(2 * even, axis=0), 100 * wide, ".1f", names, columns)
    axes.set(ylabel="router · layer", title="share of tokens on each expert, %")
    return canvas


def _gates(data: "pd.DataFrame") -> "Canvas":
    wide = data.pivot(index="row", columns="layer", values="load")
    wide = wide.reindex(list(dict.fromkeys(data["row"])))
    canvas, (axes,) = subplots(200 + 82 * max(4, len(wide.columns)), 80 + ROW * len(wide))
    heat(axes, wide, 100 * wide, ".1f", list(wide.index), [f"layer {at}" for at in wide.columns])
    axes.set_title("share of tokens on the upgraded path, %")
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
    import seaborn as sns

    canvas, (left, right) = subplots(760, 300, 2)
    layers = sorted(data["layer"].unique())
    shades = {layer: colour(f"s{place % 8}") for place, layer in enumerate(layers)}
    named = data.assign(layer=data["layer"])
    choices = named[named["part"] == "choices"]
    gradients = named[named["part"] != "choices"]
    if len(choices):
        sns.lineplot(choices, x="training", y="value", hue="layer", style="layer", palette=shades,
                     ax=left, errorbar=None, legend=False)  # fmt: skip
    if len(gradients):
        sns.lineplot(gradients, x="training", y="value", hue="layer", style="part",
                     palette=shades, ax=right, errorbar=None)  # fmt: skip
        sns.move_legend(right, "upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
        right.set_yscale("log")
        for which in (right.yaxis.set_major_formatter, right.yaxis.set_minor_formatter):
            which(lambda value, _: f"{value:.2g}")
    left.set(ylim=(0, 1.02), ylabel="share of final choices")
    right.set(ylabel="norm of the gradient")
    for axes in (left, right):
        axes.set(xlabel="share of training", xlim=(0, 1))
        axes.xaxis.set_major_formatter(lambda value, _: percent(value, 0))
    return canvas
