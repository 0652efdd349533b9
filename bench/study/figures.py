"""Figures of a study: the headline loss of each row with its seeds, and the curves that lead there."""

from bench.board.measures import mean_curve, mean_interval
from bench.board.model import Row
from bench.board.plot import Plot
from bench.board.svg import NUM_SERIES, Canvas, Figure, Scale, decimals, padded
from bench.board.text import interval, number, plain, quantity
from bench.study.config import StudyConfig
from bench.study.measures import Measure, find_measure
from bench.study.results import SizeResults

_ROW, _TOP, _NAMES, _WIDTH = 22, 30, 235, 650


def figures(study: StudyConfig, results: SizeResults) -> dict[str, Figure]:
    """File name -> figure, for every setting of one size that has losses to show.

    Measures along the study's axis where it has one.
    """
    found: dict[str, Figure] = {}
    for setting, rows in results.rows.items():
        shown = [row for row in rows if row.losses]
        if shown:
            found[f"{results.name}-{setting}-losses.svg"] = _losses(setting, shown)
        if any(len(record.curve) > 1 for row in shown for record in row.good):
            found[f"{results.name}-{setting}-curves.svg"] = _curves(setting, shown)
        for name in study.curves:
            if lines := _lines(study, find_measure(name), shown):
                found[f"{results.name}-{setting}-{name.replace('_', '-')}-along.svg"] = _along(
                    study, setting, find_measure(name), lines
                )
    return found


Point = tuple[float, float, float, float]
"""Place on the axis, mean, lowest and highest seed."""


def _lines(study: StudyConfig, measure: Measure, rows: list[Row]) -> dict[str, list[Point]]:
    """Series -> its points in order, for the series with two or more that have the measure."""
    places = {row.name: (row.series, row.at) for row in study.rows if row.series}
    lines: dict[str, list[Point]] = {}
    for row in rows:
        values = [value for record in row.good if (value := measure.read(record)) is not None]
        series, at = places.get(row.name, ("", None))
        if values and at is not None:
            lines.setdefault(series, []).append(
                (at, sum(values) / len(values), min(values), max(values))
            )
    return {series: sorted(points) for series, points in lines.items() if len(points) > 1}


def _along(
    study: StudyConfig, setting: str, measure: Measure, lines: dict[str, list[Point]]
) -> Figure:
    """A measure against the study's axis.

    Places are evenly spaced in their order, since shares reach from 0 to 1 by factors.
    """
    places = sorted({point[0] for points in lines.values() for point in points})
    description = f"{measure.meaning} against {study.axis}: mean over the seeds, and a band from the lowest to the highest."
    limits = padded(
        [value for points in lines.values() for point in points for value in point[1:]], 0.08
    )
    title = f"{measure.title.capitalize()} in {setting}"
    plot = Plot(
        title,
        description,
        (0, max(1, len(places) - 1)),
        limits,
        (study.axis, measure.title),
        lambda _: "",
        (560, 320),
    )
    for index, place in enumerate(places):
        plot.canvas.text(plot.x(index), plot.y.start + 17, f"{place:g}", "quiet mid")
    for index, (series, points) in enumerate(lines.items()):
        xs = [float(places.index(point[0])) for point in points]
        plot.curve(
            series,
            xs,
            [point[1] for point in points],
            f"s{index} curve",
            ([p[2] for p in points], [p[3] for p in points]),
        )
    data = [
        (series, f"{point[0]:g}", measure.show(point[1]))
        for series, points in lines.items()
        for point in points
    ]
    return plot.figure(
        f"{measure.name.replace('_', '-')}-along", ("series", study.axis, measure.title), data
    )


def _losses(setting: str, rows: list[Row]) -> Figure:
    """A line a row: each seed, the mean, and its t interval."""
    description = "Headline loss of each row in nats: small dots are seeds, the large one their mean, the bar its 95 % t interval."
    bottom = _TOP + _ROW * len(rows)
    canvas = Canvas(_WIDTH, bottom + 40, f"Losses in {setting}", description)
    intervals = {row.name: mean_interval(list(row.losses.values())) for row in rows}
    low, high = padded([loss for row in rows for loss in row.losses.values()])
    scale = Scale(low, high, _NAMES + 10, _WIDTH - 10)
    ticks = scale.ticks(6)
    for value in ticks:
        canvas.line(scale(value), _TOP, scale(value), bottom, "grid")
        canvas.text(scale(value), bottom + 16, number(value, decimals(ticks)), "quiet mid")
    canvas.text(scale((low + high) / 2), bottom + 34, "loss at the budget, nats", "quiet mid")
    canvas.text(0, 14, plain(setting, 60), "strong")
    for index, row in enumerate(rows):
        y, losses = _TOP + _ROW * (index + 0.5), list(row.losses.values())
        mean, (left, right) = sum(losses) / len(losses), intervals[row.name]
        canvas.text(0, y + 4, plain(row.name, 36))
        group = canvas.group("s0", f"{row.name}: {number(mean, 4)} {interval(left, right, 4)}")
        if len(losses) > 1:
            canvas.line(scale(scale.clamp(left)), y, scale(scale.clamp(right)), y, "bar", group)
        for loss in losses:
            canvas.circle(scale(loss), y, 2.5, "small", group)
        canvas.circle(scale(mean), y, 4.5, "dot", group)
    data = [
        (row.name, number(row.shown_loss, 4), interval(*intervals[row.name], 4)) for row in rows
    ]
    return canvas.figure("losses", ("row", "loss", "interval"), data)


def _curves(setting: str, rows: list[Row]) -> Figure:
    """Probe loss against training FLOPs, mean of the seeds and their range.

    The first rows in colour, the others faint.
    """
    curves = {row.name: mean_curve(row, "flops") for row in rows}
    curves = {name: curve for name, curve in curves.items() if curve.x}
    shown = [
        curve.mean[index] for curve in curves.values() for index in (2 * len(curve.mean) // 5, -1)
    ]
    reach = max(curve.x[-1] for curve in curves.values())
    description = (
        "Loss on a fixed part of the validation split during training, a line a row: mean over the seeds, and a band from the best to the "
        "worst. The early part above the frame is cut off."
    )
    plot = Plot(
        f"Training in {setting}",
        description,
        (0, reach),
        padded(shown, 0.04),
        ("training FLOPs", "nats"),
        quantity,
        (700, 380),
    )
    for index, (name, curve) in enumerate(curves.items()):
        classes = f"s{index} curve" if index < NUM_SERIES else "faint"
        plot.curve(_short(name), curve.x, curve.mean, classes, (curve.low, curve.high))
    return plot.figure(
        "curves",
        ("row", "loss"),
        [(name, number(curve.mean[-1], 4)) for name, curve in curves.items()],
    )


def _short(name: str, limit: int = 20) -> str:
    """A name cut in its middle, since rows of a study differ at their ends."""
    return (
        name if len(name) <= limit else f"{name[: limit // 2 - 2]}…{name[limit // 2 - 1 - limit :]}"
    )
