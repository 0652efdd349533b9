"""Draw the figures with one line per row: differences, ranks and domains."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from bench.board.columns import verdict_text
from bench.board.drawing import LOSS, Figure, colour, legend, subplots, tip
from bench.board.frames import tidy
from bench.board.model import Board, comparison
from bench.board.text import BITS, number, plain, whole
from bench.board.verdicts import word

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

ROW = 24
"""Height of a line in pixels."""

# Verdict -> colour, marker and whether it is filled, so that it can be read in greyscale.
_VERDICTS = {
    "better": ("good", "o", True),
    "worse": ("bad", "s", True),
    "equivalent": ("s0", "D", True),
    "inconclusive": ("muted", "o", False),
    "untestable": ("muted", "X", False),
}


def forest(board: Board) -> list[Figure]:
    """Show differences to both controls, with simultaneous intervals and the margin."""
    import pandas as pd

    pairs = [
        (row.label, title, outcome)
        for title, own in (("random, same paths", True), (board.matched_control, False))
        for row in board.ranked
        if (outcome := board.outcome(row, row.control if own else title))
    ]
    if not pairs:
        return []
    data = pd.DataFrame(
        {
            "row": name,
            "control": whole(control),
            "difference": BITS * outcome.difference,
            "low": BITS * outcome.interval[0],
            "high": BITS * outcome.interval[1],
            "verdict": word(outcome),
            "verdict (p)": verdict_text(board, outcome),
            "seeds": outcome.n,
        }
        for name, control, outcome in pairs
    )
    words = (
        "Mean difference to each control, paired by seed, with the simultaneous interval; left of "
        "zero the row is better. The grey zone is the margin of equivalence. The shape of a mark "
        "shows the verdict. An interval that ends at zero excludes zero. An arrow marks an "
        "interval that goes on."
    )
    margin = BITS * float(comparison(board.config)["margin"])
    draw = partial(_forest, margin=margin)
    return [Figure("forest", "Differences to the controls", words, data, draw)]


def _forest(data: "pd.DataFrame", margin: float) -> "Canvas":
    names, controls = list(data["row"].unique()), list(data["control"].unique())
    canvas, panels = subplots(740, 110 + ROW * len(names), len(controls), sharey=True)
    for axes, control in zip(panels, controls, strict=True):
        part = data[data["control"] == control]
        # One huge interval must not squeeze all others: the axis holds three quarters of the ends.
        ends = sorted(abs(end) for end in (*part["low"], *part["high"]) if math.isfinite(end))
        means = [1.3 * abs(mean) for mean in part["difference"] if math.isfinite(mean)]
        reach = max([2.5 * margin, *means, *ends[: 3 * len(ends) // 4][-1:]])
        axes.axvspan(-margin, margin, color=colour("muted"), alpha=0.14, linewidth=0)
        axes.axvline(0, color=colour("ink"), linewidth=1)
        for one in part.to_dict("records"):
            _interval(axes, names.index(one["row"]), one, reach)
        axes.set(xlim=(-reach, reach), ylim=(len(names) - 0.4, -0.6))
        axes.set_title(f"to {plain(control, 24)}", fontweight="bold", pad=8)
        axes.set_xlabel(f"better ← {LOSS} → worse")
        axes.locator_params(axis="x", nbins=5)
        axes.xaxis.set_major_formatter(lambda value, _: number(value, 2, signed=True))
        axes.grid(axis="y", linestyle=":")
    panels[0].set_yticks(range(len(names)), [plain(name, 22) for name in names])
    _verdict_key(panels[-1], set(data["verdict"]))
    return canvas


def _interval(axes: "Axes", y: int, one: Mapping[str, Any], reach: float) -> None:
    """Draw an interval with caps, its mean, and an arrow if it leaves the axes."""
    shade, marker, filled = _VERDICTS[one["verdict"]]
    if not math.isfinite(one["difference"]):
        return
    said = f"{one['row']} to {one['control']}: {number(one['difference'], signed=True)}"
    said += f" [{number(one['low'], signed=True)}, {number(one['high'], signed=True)}]"
    said += f", {one['verdict (p)']}, n = {one['seeds']}"
    low, high = (
        max(-reach, min(reach, end)) if math.isfinite(end) else one["difference"]
        for end in (one["low"], one["high"])
    )
    (bar,) = axes.plot([low, high], [y, y], color=colour(shade), linewidth=1.75, marker="|",
                       markersize=9, markeredgewidth=1.75)  # fmt: skip
    tip(bar, said)
    for end, at, arrow in ((one["low"], low, "<"), (one["high"], high, ">")):
        if math.isfinite(end) and end != at:
            axes.plot(at, y, arrow, color=colour(shade), markersize=7, clip_on=False)
    (dot,) = axes.plot(one["difference"], y, marker, color=colour(shade), markersize=6,
                       markerfacecolor=colour(shade if filled else "surface"),
                       markeredgewidth=1.25)  # fmt: skip
    tip(dot, said)


def _verdict_key(axes: "Axes", present: set[str]) -> None:
    from matplotlib.lines import Line2D

    shown = [name for name in _VERDICTS if name in present]
    marks = [
        Line2D([], [], color=colour(shade), marker=marker, markersize=6, linewidth=1.75,
               markerfacecolor=colour(shade if filled else "surface"))
        for shade, marker, filled in (_VERDICTS[name] for name in shown)
    ]  # fmt: skip
    legend(axes, marks, shown)


def rank_chart(board: Board) -> list[Figure]:
    """Show the possible ranks of each row, from simultaneous comparisons of all pairs."""
    import pandas as pd

    if len(board.ranked) < 2:
        return []
    ranks = [board.judgement.ranks[row.name] for row in board.ranked]
    data = pd.DataFrame(
        {
            "row": whole(one.row),
            "order": place + 1,
            "low": one.low,
            "high": one.high,
            "tier": one.tier,
        }
        for place, one in enumerate(ranks)
    )
    words = (
        "From the best to the worst rank that the simultaneous comparison of all pairs leaves "
        "open; the dot is the order of the mean losses. The comparison does not tell rows of one "
        "tier, numbered at the right, apart from the tier's first row."
    )
    routers = {row.label for row in board.ranked if row.role == "ranked"}

    def draw(data: "pd.DataFrame") -> "Canvas":
        canvas, (axes,) = subplots(660, 90 + ROW * len(data))
        for y, one in enumerate(data.to_dict("records")):
            shade = colour("s0" if one["row"] in routers else "muted")
            (bar,) = axes.plot([one["low"], one["high"]], [y, y], color=shade, linewidth=8,
                               alpha=0.35, solid_capstyle="round")  # fmt: skip
            tip(bar, f"{one['row']}: rank {one['low']} to {one['high']}, tier {one['tier']}")
            axes.plot(one["order"], y, "o" if one["row"] in routers else "s", color=shade)
        axes.set_yticks(range(len(data)), [plain(name, 22) for name in data["row"]])
        axes.set(xlabel="rank (dot: order of the means)", ylim=(len(data) - 0.4, -0.6))
        axes.locator_params(axis="x", integer=True)
        tiers = axes.secondary_yaxis("right")
        tiers.set_yticks(range(len(data)), [f"tier {tier}" for tier in data["tier"]])
        tiers.tick_params(length=0)
        return canvas

    return [Figure("ranks", "Ranks that each row may hold", words, data, draw)]


def domains(board: Board) -> list[Figure]:
    """Show the loss by domain, shaded within each domain from its best row to its worst."""
    rows = (*board.ranked, *board.brackets, *board.informed)
    frame = tidy((record for row in rows for record in row.good), "domains")
    if frame.empty:
        return []
    finite = frame[frame["loss"].map(math.isfinite)]
    means = finite.groupby(["row", "headline", "domain"], sort=False)["loss"].mean()
    data = means.reset_index().sort_values(["headline", "domain"], ascending=[False, True])
    order = {row.label: place for place, row in enumerate(rows)}
    data = data.sort_values("row", key=lambda names: names.map(order), kind="stable")
    headline = [plain(name, 30) for name in rows[0].first.headline_domains]
    words = (
        "Bits per byte in each domain, mean over seeds; within a column, the stronger the colour "
        f"the lower the loss. The headline is the mean over {', '.join(headline)}; the others "
        "stand apart."
    )
    # Pages show the table with one column per domain; the figure draws the long form.
    wide = data.pivot(index="row", columns="domain", values="loss").reindex(list(order))
    wide = wide[list(dict.fromkeys(data["domain"]))].reset_index()
    draw = partial(_domains, apart=set(data["domain"][~data["headline"]]))
    data = data.reset_index(drop=True)
    return [Figure("domains", "Loss by domain", words, data, draw, wide)]


def _domains(data: "pd.DataFrame", apart: set[str]) -> "Canvas":
    names, rows = list(dict.fromkeys(data["domain"])), list(dict.fromkeys(data["row"]))
    wide = data.pivot(index="row", columns="domain", values="loss").loc[rows, names]
    # A domain in which all rows are equal has no span to divide by.
    span = (wide.max() - wide.min()).replace(0, 1)
    canvas, (axes,) = subplots(180 + 82 * max(4, len(names)), 90 + ROW * len(rows))
    shown = [f"{plain(name, 12)}{chr(10)}(apart)" if name in apart else plain(name, 12)
             for name in names]  # fmt: skip
    heat(axes, (wide.max() - wide) / span, wide, ".3f", rows, shown)
    return canvas


def heat(
    axes: "Axes",
    shade: "pd.DataFrame",
    values: "pd.DataFrame",
    form: str,
    rows: Sequence[str],
    columns: Sequence[str],
) -> None:
    """Draw a heat map in one colour, of strength `shade` (0 to 1), with `values` as text."""
    import seaborn as sns
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    # Strength is opacity, so that one map serves light and dark pages.
    hue = to_rgb(colour("heat"))
    ramp = LinearSegmentedColormap.from_list("heat", [(*hue, 0.0), (*hue, 0.55)])
    sns.heatmap(
        shade.to_numpy(float), annot=values.to_numpy(float), fmt=form, cmap=ramp, vmin=0, vmax=1,
        cbar=False, ax=axes, linewidths=1, linecolor=colour("surface"),
        annot_kws={"color": colour("ink"), "fontsize": 11},
        yticklabels=[plain(name, 26) for name in rows], xticklabels=list(columns),
    )  # fmt: skip
    axes.collections[0].set_clip_on(False)
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    axes.tick_params(axis="x", rotation=0)
    axes.tick_params(axis="y", rotation=0)
    axes.grid(visible=False)
    axes.set(xlabel="", ylabel="")
