"""Draw the loss of each row against its costs, with the front of the best."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from bench.board import measures
from bench.board.model import Board, Row
from bench.board.text import BITS, number, percent
from bench.figures.drawing import LOSS, WIDTH, Figure, colour, subplots, tip
from bench.figures.lines import NUM_LOOKS, OTHERS, Look, label, looks, name_rows, tick

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Canvas


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
        ("latency", f"measured time a {token}, µs", read, tick),
        ("parameters", "parameters in all", measures.from_training("parameters_total"), tick),
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
        f"Headline loss of each row against {name} (logarithmic); lower left is better. The steps "
        f"join the rows that no other beats in both; costs within {percent(SAME_COST, 0)} count as "
        "equal. Names stand at the heights of their marks, and hollow marks are no routers."
    )
    draw = partial(_points, board=board, name=name, show=show)
    return Figure(f"pareto-{kind}", f"Loss against {name}", words, data, draw)


SAME_COST = 0.01
"""Costs within this share count as equal. It is the tolerance of the budget."""


def _points(
    data: "pd.DataFrame", board: Board, name: str, show: Callable[[float], str]
) -> "Canvas":
    from matplotlib.ticker import FixedLocator, NullLocator

    canvas, (axes,) = subplots(WIDTH, 420)
    axes.set_xscale("log")
    best = data[data["front"]].sort_values("cost")
    axes.plot(best["cost"], best["loss"], "--", color=colour("muted"), linewidth=1.25, zorder=1,
              drawstyle="steps-post")  # fmt: skip
    known, styles, heights = looks(board, NUM_LOOKS), dict[str, Look](), dict[str, float]()
    for one in data.to_dict("records"):
        # Rows of other budgets are faint; brackets belong to every budget.
        own = math.isclose(one["budget"], board.budget) or known[one["row"]].colour == "ink"
        look = known[one["row"]] if own else OTHERS
        (mark,) = axes.plot(one["cost"], one["loss"], zorder=3, **look.point)
        tip(mark, f"{one['row']}: {show(one['cost'])}, {number(one['loss'])} {LOSS}")
        # A row may have several budgets; the point at the board's budget has the name.
        if own or one["row"] not in styles:
            styles[one["row"]], heights[one["row"]] = look, one["loss"]
    axes.margins(x=0.06, y=0.06)
    axes.set_ylim(axes.get_ylim())
    name_rows(axes, {row: look.point for row, look in styles.items()}, styles, heights)
    label(axes, name, LOSS, show)
    axes.xaxis.set_major_locator(FixedLocator(_ticks(*axes.get_xlim())))
    axes.xaxis.set_minor_locator(NullLocator())
    return canvas


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers for a logarithmic axis, at least a sixth of its length apart."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for place in (digit * 10.0**power for power in powers for digit in (1, 1.5, 2, 3, 5, 7)):
        near = bool(found) and math.log(place / found[-1]) < math.log(high / low) / 6
        if low <= place <= high and not near:
            found.append(place)
    return found
