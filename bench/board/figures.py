"""Draw the figures of a board with lines and points, from tidy frames of its records.

`charts` draws the figures with one line per row.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.board import measures
from bench.board.charts import domains, forest, rank_chart
from bench.board.drawing import LOSS, Figure, colour, legend, subplots, tip
from bench.board.frames import resampled, tidy
from bench.board.lines import Look, draw_lines, label, late, looks
from bench.board.load_charts import loads
from bench.board.model import Board, Row
from bench.board.text import BITS, number, percent, quantity
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
            "a row: the mean over seeds, and a band from the best seed to the worst. Controls are "
            "dashed and brackets dotted. The early part above the frame is cut off."
        )
        draw = partial(_curves, styles=looks(board), limits=limits, name=name)
        made.append(Figure(f"loss-{axis}", f"Loss against {name}", words, data, draw, shown))
    return made


def _curves(
    data: "pd.DataFrame", styles: Mapping[str, Look], limits: Sequence[float], name: str
) -> "Canvas":
    canvas, (axes,) = subplots(720, 400)
    draw_lines(data, axes, styles)
    low, high = late(data)
    axes.set_ylim(low, high)
    axes.set_xlim(0, None)
    for limit in (limit for limit in limits if low < limit < high):
        axes.axhline(limit, color=colour("muted"), linestyle=(0, (1, 3)), linewidth=1)
        axes.annotate(number(limit, 2), (1, limit), (-2, 3), ha="right", fontsize=11,
                      xycoords=("axes fraction", "data"), textcoords="offset points",
                      color=colour("muted"))  # fmt: skip
    label(axes, name, LOSS, quantity)
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
        canvas, (axes,) = subplots(720, 400)
        axes.axvline(1, color=colour("muted"), linestyle=(0, (1, 3)), linewidth=1.25)
        draw_lines(data, axes, looks(board), x="spend")
        label(axes, "spend, share of the budget", LOSS, partial(percent, digits=0))
        return canvas

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
        canvas, (axes,) = subplots(720, 380)
        styles = {name: looks(board).get(name, Look(faint=True)) for name in data["row"]}
        draw_lines(data, axes, styles, x="factor", y="above")
        axes.set_xscale("log", base=2)
        axes.set(xlabel="factor on the learning rate", ylabel=f"{LOSS} above own best")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.3g}×")
        return canvas

    title = "Sensitivity to the learning rate"
    return [Figure("learning-rate", title, words, data.reset_index(drop=True), draw)]


def pareto(board: Board) -> list[Figure]:
    """Show the loss against inference FLOPs, measured time and parameters, with the front."""
    rows = (*board.ranked, *board.brackets, *board.other_budgets)
    # Without the latency of every row, the time per training token takes its place.
    timed = all(row.mean(measures.latency) is not None for row in rows)
    token = "token of inference" if timed else "training token"
    read = measures.latency if timed else measures.training_latency
    share = partial(percent, digits=0)
    kinds = (
        ("flops", "inference FLOPs a token, share of dense", measures.active_share, share),
        ("latency", f"measured time a {token}, µs", read, quantity),
        ("parameters", "parameters in all", measures.from_training("parameters_total"), quantity),
    )
    made = (_pareto(board, rows, *kind) for kind in kinds)
    return [figure for figure in made if figure]


def _pareto(
    board: Board,
    rows: Sequence[Row],
    kind: str,
    name: str,
    read: Callable[[Any], float | None],
    show: Callable[[float], str],
) -> Figure | None:
    import pandas as pd

    points = [
        {"row": row.label, "budget": row.first.cell.budget, "cost": cost, "loss": BITS * loss}
        for row in rows
        if (cost := row.mean(read)) is not None and (loss := row.shown_loss) is not None
    ]
    if len(points) < 2:
        return None
    data = pd.DataFrame(points)
    places = list(zip(data["cost"], data["loss"], strict=True))
    # Rows calibrated to one budget differ in cost by the tolerance only.
    front = measures.frontier(places, same=SAME_COST)
    data["front"] = [place in front for place in places]
    words = (
        f"Headline loss of each row against {name}; lower left is better. The line joins the rows "
        f"that no other beats in both; costs within {percent(SAME_COST, 0)} count as equal."
    )
    draw = partial(_points, board=board, name=name, show=show)
    return Figure(f"pareto-{kind}", f"Loss against {name}", words, data, draw)


SAME_COST = 0.01
"""Costs within this share count as equal. It is the tolerance of the budget."""


def _points(
    data: "pd.DataFrame", board: Board, name: str, show: Callable[[float], str]
) -> "Canvas":
    canvas, (axes,) = subplots(720, 420)
    best = data[data["front"]].sort_values("cost")
    axes.plot(best["cost"], best["loss"], "--", color=colour("muted"), linewidth=1.25, zorder=1)
    styles, marks = looks(board), dict[str, Any]()
    for one in data.to_dict("records"):
        # Rows of other budgets are faint; brackets belong to every budget.
        own = math.isclose(one["budget"], board.budget) or styles[one["row"]].colour == "ink"
        look = styles[one["row"]] if own else Look(faint=True)
        (mark,) = axes.plot(
            one["cost"], one["loss"], marker="o" if look.faint else look.marker, linestyle="none",
            color=colour(look.colour), markersize=5 if look.faint else 9, zorder=3,
            alpha=0.5 if look.faint else 0.9, markeredgecolor=colour("surface"),
        )  # fmt: skip
        tip(mark, f"{one['row']}: {show(one['cost'])}, {number(one['loss'])} {LOSS}")
        marks.setdefault("others" if look.faint else one["row"], mark)
    legend(axes, list(marks.values()), list(marks))
    label(axes, name, LOSS, show)
    return canvas


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
