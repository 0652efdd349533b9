"""Figures with one line a row: differences with the margin, rank intervals, domains."""

import math
from collections.abc import Sequence

from bench.board.columns import verdict_text
from bench.board.measures import domain_losses
from bench.board.model import Board, Row, comparison
from bench.board.svg import Canvas, Figure, Scale, decimals
from bench.board.text import BITS, interval, number, plain
from bench.board.verdicts import word
from bench.stats import Outcome, Rank

_ROW, _TOP, _NAMES, _PANEL, _GAP, _DOMAIN = 22, 44, 148, 194, 14, 76


def forest(board: Board) -> list[Figure]:
    """Differences to both controls with simultaneous intervals and the margin of equivalence."""
    panels = (
        (
            "random, same paths",
            {row.name: board.outcome(row, row.first.cell.control) for row in board.ranked},
        ),
        (
            board.matched_control,
            {row.name: board.outcome(row, board.matched_control) for row in board.ranked},
        ),
    )
    rows = [row for row in board.ranked if any(found[row.name] for _, found in panels)]
    if not rows:
        return []
    description = (
        "Mean difference to each control, paired by seed, with the simultaneous interval; left of zero the row is better. The grey zone is "
        "the margin of equivalence. Filled dots are decided (better, worse or equivalent), hollow ones are not; an arrow head says that an "
        "interval goes on."
    )
    size = _NAMES + 2 * _PANEL + _GAP + 10, _TOP + _ROW * len(rows) + 36
    canvas = Canvas(*size, "Differences to the controls", description)
    _names(canvas, rows)
    for index, (heading, found) in enumerate(panels):
        left = _NAMES + index * (_PANEL + _GAP)
        _forest_panel(
            canvas,
            left,
            heading,
            [found[row.name] for row in rows],
            BITS * float(comparison(board.config)["margin"]),
        )
    data = [
        (row.name, heading, *_numbers(outcome))
        for heading, found in panels
        for row in rows
        if (outcome := found[row.name])
    ]
    return [
        canvas.figure(
            "forest", ("router", "control", "difference", "interval", "verdict (p)"), data
        )
    ]


def _names(canvas: Canvas, rows: Sequence[Row]) -> None:
    """Names down the left side, a hairline under each."""
    for index, row in enumerate(rows):
        y = _TOP + _ROW * index
        group = canvas.group(title=row.name)
        canvas.line(0, y + _ROW, canvas.width, y + _ROW, "grid", group)
        canvas.text(0, y + 15, plain(row.name, 20), "", group)


def _numbers(outcome: Outcome) -> tuple[str, str, str]:
    low, high = (BITS * end for end in outcome.interval)
    return (
        number(BITS * outcome.difference, signed=True),
        interval(low, high, signed=True),
        verdict_text(outcome),
    )


def _forest_panel(
    canvas: Canvas, left: float, heading: str, outcomes: Sequence[Outcome | None], margin: float
) -> None:
    """One control: axis, margin, and an interval a row.

    The axis shows every mean and three intervals in four whole.
    """
    judged = [outcome for outcome in outcomes if outcome]
    ends = sorted(
        abs(BITS * end) for outcome in judged for end in outcome.interval if math.isfinite(end)
    )
    means = [
        1.3 * abs(BITS * outcome.difference)
        for outcome in judged
        if math.isfinite(outcome.difference)
    ]
    reach = max([2.5 * margin, *means, *ends[: 3 * len(ends) // 4][-1:]])
    scale = Scale(-reach, reach, left + 8, left + _PANEL - 8)
    bottom = _TOP + _ROW * len(outcomes)
    canvas.rect(scale(-margin), _TOP, (scale(margin) - scale(-margin), bottom - _TOP), "zone")
    canvas.line(scale(0), _TOP, scale(0), bottom, "zero")
    canvas.text(scale(0), 14, f"to {plain(heading, 24)}", "strong mid")
    canvas.text(left + 8, _TOP - 8, "better", "quiet")
    canvas.text(left + _PANEL - 8, _TOP - 8, "worse", "quiet end")
    ticks = scale.ticks(5)
    for value in ticks:
        canvas.text(
            scale(value), bottom + 16, number(value, decimals(ticks), signed=True), "quiet mid"
        )
    canvas.text(scale(0), bottom + 32, "bits per byte", "quiet mid")
    for index, outcome in enumerate(outcomes):
        if outcome and math.isfinite(outcome.difference):
            _forest_mark(canvas, scale, _TOP + _ROW * (index + 0.5), outcome)


def _forest_mark(canvas: Canvas, scale: Scale, y: float, outcome: Outcome) -> None:
    """An interval and its mean, with the numbers on hover."""
    verdict, mean = word(outcome), BITS * outcome.difference
    group = canvas.group(
        verdict,
        f"{outcome.row} to {outcome.control}: {' '.join(_numbers(outcome))}, n = {outcome.n}",
    )
    for end, towards in zip(outcome.interval, (-1, 1), strict=True):
        if math.isfinite(end):
            stop = scale(scale.clamp(BITS * end))
            canvas.line(scale(mean), y, stop, y, "bar", group)
            if BITS * end != scale.clamp(BITS * end):
                canvas.path(
                    [(stop - 5 * towards, y - 4), (stop, y), (stop - 5 * towards, y + 4)],
                    "curve",
                    group,
                )
    canvas.circle(
        scale(mean),
        y,
        4.5,
        "dot" if verdict in ("better", "worse", "equivalent") else "hollow",
        group,
    )


def rank_intervals(board: Board) -> list[Figure]:
    """The ranks each row may hold, from simultaneous comparisons of all pairs."""
    ranks, rows = board.judgement.ranks, board.ranked
    if len(rows) < 2:
        return []
    description = (
        "From the best to the worst rank that the simultaneous comparison of all pairs leaves open; the dot is the order of the mean "
        "losses. Rows of one tier, numbered at the right, are not told apart from its first row."
    )
    bottom = _TOP + _ROW * len(rows)
    canvas = Canvas(_NAMES + 402, bottom + 8, "Ranks that each row may hold", description)
    scale = Scale(1, len(rows), _NAMES + 16, _NAMES + 350)
    _names(canvas, rows)
    canvas.text((scale.start + scale.end) / 2, 14, "rank", "strong mid")
    canvas.text(canvas.width, 14, "tier", "strong end")
    inner = (round(tick) for tick in scale.ticks(6))
    for value in sorted(
        {
            1,
            len(rows),
            *(tick for tick in inner if min(tick - 1, len(rows) - tick) >= len(rows) / 12),
        }
    ):
        canvas.line(scale(value), _TOP, scale(value), bottom, "grid")
        canvas.text(scale(value), _TOP - 8, str(value), "quiet mid")
    for index, row in enumerate(rows):
        rank, y = ranks[row.name], _TOP + _ROW * (index + 0.5)
        group = canvas.group(
            "s0" if row.role == "ranked" else "muted",
            f"{row.name}: rank {rank.low} to {rank.high}, tier {rank.tier}",
        )
        canvas.line(scale(rank.low), y, scale(rank.high), y, "wide", group)
        canvas.circle(scale(index + 1), y, 4, "dot", group)
        canvas.text(canvas.width, y + 4, str(rank.tier), "quiet end", group)
    data = [
        (name, str(i + 1), f"{rank.low} to {rank.high}", str(rank.tier))
        for i, (name, rank) in enumerate(_ordered(board))
    ]
    return [canvas.figure("ranks", ("router", "order of means", "ranks", "tier"), data)]


def _ordered(board: Board) -> list[tuple[str, Rank]]:
    return [(row.name, board.judgement.ranks[row.name]) for row in board.ranked]


def domains(board: Board) -> list[Figure]:
    """Loss by domain, shaded within each domain from its best row to its worst."""
    losses = {
        row.name: domain_losses(row) for row in (*board.ranked, *board.brackets, *board.informed)
    }
    rows = [row for row in (*board.ranked, *board.brackets, *board.informed) if losses[row.name]]
    if not rows:
        return []
    headline = rows[0].first.headline_domains
    names = sorted(
        {name for one in losses.values() for name in one},
        key=lambda name: (name not in headline, name),
    )
    description = (
        "Bits per byte in each domain, mean over seeds; within a column, the stronger the colour the lower the loss. "
        f"The headline is the mean over {', '.join(headline) or 'the headline domains'}; the others are reported apart."
    )
    canvas = Canvas(
        _NAMES + _DOMAIN * len(names), _TOP + _ROW * len(rows) + 4, "Loss by domain", description
    )
    _names(canvas, rows)
    for column, name in enumerate(names):
        x = _NAMES + _DOMAIN * column
        canvas.text(
            x + _DOMAIN / 2, 14, plain(name, 12), "strong mid" if name in headline else "mid"
        )
        canvas.text(x + _DOMAIN / 2, 30, "headline" if name in headline else "apart", "quiet mid")
        _domain_cells(canvas, x, name, [(row.name, losses[row.name].get(name)) for row in rows])
    data = [
        (row.name, *(number(BITS * losses[row.name].get(name, math.nan)) for name in names))
        for row in rows
    ]
    return [canvas.figure("domains", ("router", *names), data)]


def _domain_cells(
    canvas: Canvas, x: float, domain: str, cells: Sequence[tuple[str, float | None]]
) -> None:
    """One column of the heat map."""
    known = [loss for _, loss in cells if loss is not None]
    best, worst = min(known), max(known)
    for index, (name, loss) in enumerate(cells):
        if loss is not None:
            y = _TOP + _ROW * index
            share = (worst - loss) / (worst - best) if worst > best else 0.0
            group = canvas.group(title=f"{name}, {domain}: {number(BITS * loss)} bits per byte")
            canvas.rect(x + 1, y + 1, (_DOMAIN - 2, _ROW - 2), "heat", group, opacity=0.5 * share)
            canvas.text(x + _DOMAIN / 2, y + 15, number(BITS * loss), "mid", group)
