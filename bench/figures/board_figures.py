"""Draw the figures of a board with lines and points, from tidy frames of its records.

`charts` draws the figures with one line per row.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.board import measures
from bench.board.frames import resampled, tidy
from bench.board.model import Board, comparison
from bench.board.text import BITS, number, percent
from bench.figures.charts import domains, forest, rank_chart
from bench.figures.drawing import LOSS, WIDTH, Figure, colour, subplots
from bench.figures.lines import (
    NUM_BANDS,
    NUM_LOOKS,
    OTHERS,
    Look,
    draw_lines,
    label,
    late,
    looks,
    tick,
)
from bench.figures.load_charts import loads
from bench.figures.pareto import pareto
from bench.files import write_atomically

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Canvas


def board_figures(board: Board) -> list[Figure]:
    """Return the figures that have data, in the order of the report."""
    return [figure for make in _MAKERS for figure in make(board)]


def figure_files(boards: Sequence[Board], directory: Path) -> dict[Path, Figure]:
    """Return path -> figure for a suite's boards. With several budgets, each has a folder."""
    made: dict[Path, Figure] = {}
    for board in boards:
        # Two boards of one suite have figures of the same names.
        folder = directory / f"b{100 * board.budget:g}" if board.other_budgets else directory
        made |= {folder / f"{figure.slug}.svg": figure for figure in board_figures(board)}
    return made


def figures_there(directory: Path) -> set[Path]:
    """Return the files of figures that exist in a folder."""
    return {*directory.glob("*.svg"), *directory.glob("b*/*.svg")}


def write_figures(boards: Sequence[Board], directory: Path) -> list[Path]:
    """Write the figures of a suite's boards, and remove figures that have no data any more."""
    made = figure_files(boards, directory)
    for path, figure in made.items():
        write_atomically(path, figure.standalone())
    for path in figures_there(directory) - made.keys():
        path.unlink()
    return list(made)


_AXES = (
    ("flops", "training FLOPs"),
    ("tokens", "training tokens"),
    ("seconds", "wall-clock seconds of training"),
)

_LONGER = 1.35
"""How far the frame of the curves goes beyond the last ranked row, as a multiple."""


def loss_curves(board: Board) -> list[Figure]:
    """Show the probe loss during training against FLOPs, tokens and time."""
    import pandas as pd

    rows = (*board.ranked, *board.brackets)
    frames = [tidy(row.good, "curves") for row in rows]
    limits = [BITS * limit for limit in measures.thresholds(board)]
    made: list[Figure] = []
    for axis, name in _AXES:
        found = [part for frame in frames if len(part := resampled(frame, axis))]
        if not found:
            continue
        data = pd.concat(found, ignore_index=True)
        # A page shows the last probe of each row; the curves are too long for a table.
        ends = data.groupby(["row", "seed"], sort=False).last().groupby("row", sort=False)
        shown = ends[["x", "loss"]].mean().reset_index()
        words = (
            f"Loss on a fixed part of the validation split during training against {name}, a line "
            f"a row: the mean over seeds. Up to {NUM_BANDS} lines have a band from the best seed "
            "to the worst. Names stand at the heights of the ends. Controls are dashed and "
            "brackets dotted. The early part above the frame is cut off, and so is the longer "
            "training of a bracket. The cost table counts FLOPs up to the dotted levels."
        )
        # Times of seeds differ more than their losses, so their bands would cover everything.
        draw = partial(
            _curves,
            styles=looks(board),
            limits=limits,
            name=name,
            bands=axis != "seconds",
            ranked={row.label for row in board.ranked},
        )
        made.append(Figure(f"loss-{axis}", f"Loss against {name}", words, data, draw, shown))
    return made


def _curves(
    data: "pd.DataFrame",
    styles: Mapping[str, Look],
    limits: Sequence[float],
    name: str,
    bands: bool,
    ranked: set[str],
) -> "Canvas":
    canvas, (axes,) = subplots(WIDTH, 400)
    # A bracket may train for several times the budget and would squeeze all others.
    ours = data["x"][data["row"].isin(ranked)]
    right = min(data["x"].max() * 1.03, _LONGER * (ours.max() if len(ours) else math.inf))
    low, high = late(data)
    draw_lines(data, axes, styles, bands=bands, right=right, limits=(low, high))
    for limit in (limit for limit in limits if low < limit < high):
        axes.axhline(limit, color=colour("muted"), linestyle=(0, (1, 3)), linewidth=1)
        axes.annotate(number(limit, 2), (0, limit), (3, 3), fontsize=12,
                      xycoords=("axes fraction", "data"), textcoords="offset points",
                      color=colour("muted"))  # fmt: skip
    label(axes, name, LOSS, tick)
    return canvas


def spend_sweep(board: Board) -> list[Figure]:
    """Show the loss against the spend of causal evaluation, from the knob sweep."""
    frame = tidy((record for row in board.ranked for record in row.good), "spend")
    if frame.empty:
        return []
    seeds = {row.label: len(row.good) for row in board.ranked}
    finite = frame[frame["loss"].map(math.isfinite)]
    points = finite.groupby(["row", "target"], sort=False)
    data = points[["spend", "loss"]].mean().assign(seeds=points["seed"].count()).reset_index()
    # A point is a mean over all seeds of its row, or the line would jump between sets of seeds.
    data = data[data["seeds"] == data["row"].map(seeds)].sort_values(["row", "spend"])
    several = data.groupby("row")["spend"].transform("count") > 1
    order = {row.label: place for place, row in enumerate(board.ranked)}
    data = data[several].sort_values("row", key=lambda names: names.map(order), kind="stable")
    if data.empty:
        return []
    words = (
        "Loss on the validation split when the knob makes evaluation spend more or less than the "
        "budget, mean over seeds. The headline is read at 100 %, so a calibration that drifts "
        "gains and loses nothing."
    )

    def draw(data: "pd.DataFrame") -> "Canvas":
        canvas, (axes,) = subplots(WIDTH, 400)
        axes.axvline(1, color=colour("muted"), linestyle=(0, (1, 3)), linewidth=1.25)
        axes.annotate("the budget", (1, 1), (4, -4), va="top", fontsize=12, color=colour("muted"),
                      xycoords=("data", "axes fraction"), textcoords="offset points")  # fmt: skip
        low, high = data["loss"].min(), data["loss"].max()
        # A smaller span would blow up differences that no verdict counts.
        room = max(0.06 * (high - low), margin - (high - low) / 2)
        styles = looks(board, NUM_LOOKS)
        draw_lines(data, axes, styles, x="spend", limits=(low - room, high + room))
        label(axes, "spend, share of the budget", LOSS, partial(percent, digits=0))
        return canvas

    margin = BITS * float(comparison(board.config)["margin"])
    kept = data[["row", "target", "spend", "loss"]]
    return [Figure("spend", "Loss against spend around the budget", words, kept, draw)]


def sensitivity(board: Board) -> list[Figure]:
    """Show the loss of each row against a factor on its learning rate, on unranked seeds."""
    import pandas as pd

    points: list[dict[str, Any]] = []
    for row in board.sensitivity:
        name, _, text = row.label.rpartition("@lr")
        factor = measures.positive(text)
        if factor is not None and row.shown_loss is not None:
            points.append({"row": name, "factor": factor, "loss": BITS * row.shown_loss})
    data = pd.DataFrame(points, columns=["row", "factor", "loss"]).sort_values(["row", "factor"])
    data = data[data.groupby("row")["factor"].transform("count") > 1]
    if data.empty:
        return []
    data = data.assign(above=data["loss"] - data.groupby("row")["loss"].transform("min"))
    words = (
        "Loss of each row above its own best, against a factor on all its learning rates "
        "(logarithmic), on seeds that the ranking does not use. The shared recipe held back a row "
        "whose lowest point is not at 1×."
    )

    def draw(data: "pd.DataFrame") -> "Canvas":
        canvas, (axes,) = subplots(WIDTH, 380)
        known = looks(board, NUM_LOOKS)
        styles = {name: known.get(name, OTHERS) for name in data["row"]}
        axes.set_xscale("log", base=2)
        draw_lines(data, axes, styles, x="factor", y="above")
        axes.set(xlabel="factor on the learning rate", ylabel=f"{LOSS} above own best")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.3g}×")
        return canvas

    title = "Sensitivity to the learning rate"
    return [Figure("learning-rate", title, words, data.reset_index(drop=True), draw)]


_MAKERS: tuple[Callable[[Board], list[Figure]], ...] = (
    forest,
    rank_chart,
    loss_curves,
    pareto,
    spend_sweep,
    domains,
    loads,
    sensitivity,
)
