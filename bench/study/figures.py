"""Draw the figures of a study: the headline loss of each row with its seeds, and its curves."""

import math
from collections.abc import Sequence
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING

from bench.board.drawing import Figure, colour, subplots, tip
from bench.board.frames import resampled, tidy
from bench.board.lines import draw_lines, label, late, series
from bench.board.measures import mean_interval
from bench.board.model import Row
from bench.board.text import BITS, interval, number, plain, quantity
from bench.study.config import StudyConfig
from bench.study.measures import Measure, find_measure
from bench.study.results import SizeResults

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Canvas

_ROW, _NAME = 24, 40


def study_figures(study: StudyConfig, results: SizeResults) -> dict[str, Figure]:
    """Return file name -> figure, for every setting of one size that has losses, or across them."""
    if study.across:
        joined = [_across(study, find_measure(name), results) for name in study.across]
        return {f"{results.name}.{one.slug}.svg": one for one in joined if one is not None}
    found: dict[str, Figure] = {}
    for setting, rows in results.rows.items():
        shown = [row for row in rows if row.losses]
        made = [_losses(setting, shown), _curves(setting, shown)]
        made += [_along(study, setting, find_measure(name), shown) for name in study.curves]
        stem = f"{results.name}-{setting}"
        found |= {f"{stem}-{one.slug}.svg": one for one in made if one is not None}
    return found


def _losses(setting: str, rows: Sequence[Row]) -> Figure | None:
    """Show a line per row: each seed, the mean, and its t interval."""
    import pandas as pd

    if not rows:
        return None
    data = pd.DataFrame(
        {"row": row.label, "seed": seed, "loss": loss}
        for row in rows
        for seed, loss in row.losses.items()
    )
    words = (
        "Headline loss of each row in nats: small dots are seeds, the large one their mean, the "
        "bar its 95 % t interval. An interval much wider than all losses is cut at the frame."
    )
    return Figure("losses", f"Losses in {setting}", words, data, _draw_losses)


def _draw_losses(data: "pd.DataFrame") -> "Canvas":
    import seaborn as sns

    names = list(dict.fromkeys(data["row"]))
    canvas, (axes,) = subplots(720, 70 + _ROW * len(names))
    # Seeds lie a little above the interval, which would hide them.
    places = data["row"].map(names.index) - 0.28
    sns.scatterplot(data, x="loss", y=places, ax=axes, color=colour("muted"), s=22, alpha=0.7)
    # The frame holds all seeds; an interval may leave it.
    ends = [data["loss"].min(), data["loss"].max()]
    room = 0.3 * (ends[1] - ends[0]) or 0.01
    for y, name in enumerate(names):
        losses = data["loss"][data["row"] == name].tolist()
        # A single seed has no interval: its ends are NaN, and only the dot is drawn.
        mean, (left, right) = sum(losses) / len(losses), mean_interval(losses)
        (bar,) = axes.plot([left, right], [y, y], color=colour("s0"), linewidth=1.75, marker="|",
                           markersize=9, markeredgewidth=1.75)  # fmt: skip
        (dot,) = axes.plot(mean, y, "o", color=colour("s0"), markersize=6)
        for mark in (bar, dot):
            tip(mark, f"{name}: {number(mean, 4)} {interval(left, right, 4)}")
        ends += [end for end in (left, right) if math.isfinite(end)]
    low, high = data["loss"].min() - room, data["loss"].max() + room
    shown = max(low, min(ends)), min(high, max(ends))
    edge = 0.03 * (shown[1] - shown[0]) or 0.01
    axes.set(xlim=(shown[0] - edge, shown[1] + edge), ylim=(len(names) - 0.4, -0.7))
    axes.set(xlabel="loss at the budget, nats", ylabel="")
    axes.set_yticks(range(len(names)), [_short(name) for name in names])
    return canvas


def _curves(setting: str, rows: Sequence[Row]) -> Figure | None:
    """Show the probe loss against training FLOPs: mean of the seeds and their range."""
    import pandas as pd

    # Probes of different seeds lie at different FLOPs, so curves are resampled to common places.
    found = [part for row in rows if len(part := resampled(tidy(row.good, "curves"), "flops"))]
    if not found:
        return None
    data = pd.concat(found, ignore_index=True)
    # Tidy frames hold bits per byte, and a study speaks in nats.
    data["loss"] = data["loss"] / BITS
    words = (
        "Loss on a fixed part of the validation split during training, a line a row: mean over "
        "the seeds, and a band from the best to the worst. The early part above the frame is cut "
        "off."
    )
    return Figure("curves", f"Training in {setting}", words, data, _draw_curves)


def _draw_curves(data: "pd.DataFrame") -> "Canvas":
    canvas, (axes,) = subplots(760, 400)
    data = data.assign(row=[_short(name, 24) for name in data["row"]])
    # Each row keeps its colour and dash in the order of the study.
    styles = {name: series(place) for place, name in enumerate(dict.fromkeys(data["row"]))}
    draw_lines(data, axes, styles)
    axes.set_ylim(*late(data))
    axes.set_xlim(0, None)
    label(axes, "training FLOPs", "nats", quantity)
    return canvas


def _along(
    study: StudyConfig, setting: str, measure: Measure, rows: Sequence[Row]
) -> Figure | None:
    """Show a measure against the study's axis, a line per series of rows."""
    import pandas as pd

    places = {row.name: (row.series, row.at) for row in study.rows if row.series}
    points = [
        {"row": places[row.label][0], "at": places[row.label][1], "seed": seed, "value": value}
        for row in rows if row.label in places
        for seed, value in row.by_seed(measure.read).items()
    ]  # fmt: skip
    data = pd.DataFrame(points, columns=["row", "at", "seed", "value"])
    # A series with a single place is no line.
    data = data[data.groupby("row")["at"].transform("nunique") > 1].sort_values("at", kind="stable")
    if data.empty:
        return None
    words = (
        f"{measure.meaning} against {study.axis}: mean over the seeds, and a band from the lowest "
        "to the highest."
    )
    title = f"{measure.title.capitalize()} in {setting}"
    draw = partial(_draw_along, axis=study.axis, name=measure.title)
    return Figure(f"{measure.name.replace('_', '-')}-along", title, words, data, draw)


def _draw_along(data: "pd.DataFrame", axis: str, name: str) -> "Canvas":
    """Space the places evenly in their order, because shares differ by factors."""
    # The axis shows ranks, labelled with the real values.
    places = sorted(data["at"].unique())
    canvas, (axes,) = subplots(680, 340)
    styles = {one: series(place) for place, one in enumerate(dict.fromkeys(data["row"]))}
    draw_lines(data.assign(x=data["at"].map(places.index)), axes, styles, y="value")
    axes.set(xlabel=axis, ylabel=name)
    axes.set_xticks(range(len(places)), [f"{place:g}" for place in places])
    return canvas


def _across(study: StudyConfig, measure: Measure, results: SizeResults) -> Figure | None:
    """Show the loss against a measure, a line for each row and series of settings."""
    import pandas as pd

    # x is a mean over seeds, so that all seeds of a row lie above one place.
    points = [
        {"row": f"{series}: {row.label}", "x": fmean(places), "seed": seed, "loss": loss}
        for setting, rows in results.rows.items()
        for row in rows
        if (series := study.settings[setting].series)
        and (places := list(row.by_seed(measure.read).values()))
        for seed, loss in row.losses.items()
    ]
    data = pd.DataFrame(points, columns=["row", "x", "seed", "loss"])
    if data.empty:
        return None
    words = (
        f"Headline loss against {measure.meaning}: mean over the seeds, and a band from the lowest "
        "to the highest."
    )
    draw = partial(_draw_across, name=measure.title)
    data = data.sort_values(["row", "x"], kind="stable")
    return Figure(f"loss-{measure.name}", f"Loss against {measure.title}", words, data, draw)


def _draw_across(data: "pd.DataFrame", name: str) -> "Canvas":
    from matplotlib.ticker import LogLocator, NullLocator

    canvas, (axes,) = subplots(760, 400)
    styles = {one: series(place) for place, one in enumerate(dict.fromkeys(data["row"]))}
    draw_lines(data, axes, styles)
    axes.set(xlabel=name, ylabel="nats", xscale="log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: quantity(value))
    axes.xaxis.set_minor_locator(NullLocator())
    return canvas


def _short(name: str, limit: int = _NAME) -> str:
    """Cut a name in its middle, because rows of a study differ at their ends."""
    name = plain(name, 200)
    if len(name) <= limit:
        return name
    return f"{name[: limit // 2 - 2]}…{name[limit // 2 - 1 - limit :]}"
