"""How one router routes.

Where its tokens go, by layer, position, domain and frequency, and a passage in colour.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from bench.board.model import Row
from bench.board.monitors import layers_of
from bench.board.svg import NUM_SERIES, Canvas, Figure
from bench.board.text import number, percent, plain
from bench.record import LayerMonitor

_LINE, _TOP, _NAMES, _LOAD, _CELL, _GAP = 18, 48, 128, 96, 12, 18


@dataclass(frozen=True)
class Run:
    """Neighbouring tokens that took the same path set.

    Their text, the class of their colour, the name of the set.
    """

    text: str
    classes: str
    name: str


@dataclass(frozen=True)
class PassageLayer:
    """A passage as one layer routed it, with the key to its colours."""

    layer: str
    runs: tuple[Run, ...]
    key: tuple[tuple[str, str], ...]


def routes(row: Row) -> Figure | None:
    """Share of tokens on each path by layer, and its probability by position, token frequency and
    domain; mean over seeds.

    Of two paths only the second, the upgraded one, is drawn. None where the row has no choice to
    show.
    """
    lines = [line for layer in layers_of(row) for line in _lines(layer)]
    if not lines:
        return None
    names = sorted({domain for line in lines for domain in line.by_domain})
    blocks = (
        ("position, first to last", 16),
        ("frequency, rare to common", 10),
        ("domain", len(names)),
    )
    widths = (_CELL * 16, 18 * 10, 62 * len(names))
    width = _NAMES + _LOAD + sum(widths) + _GAP * len(blocks)
    description = (
        f"Share of tokens that {row.name} sends down each path, by layer (left), and the same share by position in the sequence, by token "
        f"frequency and by domain ({', '.join(names)}); the stronger the colour the larger the share."
    )
    canvas = Canvas(width, _TOP + _LINE * len(lines) + 6, "Where the tokens go", description)
    canvas.text(_NAMES, 14, "load", "strong")
    left = float(_NAMES + _LOAD + _GAP)
    starts: list[float] = []
    for (heading, _), wide in zip(blocks, widths, strict=True):
        starts.append(left)
        canvas.text(left, 14, heading, "strong")
        left += wide + _GAP
    wide = widths[2] / max(1, len(names))
    for index, domain in enumerate(names):
        canvas.text(starts[2] + wide * (index + 0.5), 34, plain(domain, 8), "quiet mid")
    for index, line in enumerate(lines):
        cells = (
            line.by_position,
            line.by_frequency,
            [line.by_domain.get(domain, 0.0) for domain in names],
        )
        _draw(
            canvas,
            _TOP + _LINE * index,
            line,
            [
                (x, span / max(1, len(c)), c)
                for x, span, c in zip(starts, widths, cells, strict=True)
            ],
        )
    data = [
        (line.name, percent(line.load), *(percent(line.by_domain.get(domain)) for domain in names))
        for line in lines
    ]
    return canvas.figure("routes", ("layer and path", "load", *names), data)


@dataclass(frozen=True)
class _Line:
    """One path of one layer."""

    name: str
    load: float
    by_position: Sequence[float]
    by_frequency: Sequence[float]
    by_domain: dict[str, float]


def _lines(monitors: Sequence[LayerMonitor]) -> list[_Line]:
    """The paths of one layer, averaged over seeds."""
    first = monitors[0]
    paths = range(len(first.paths)) if len(first.paths) != 2 else (1,)
    if len(first.paths) < 2:
        return []

    def mean(rows: Sequence[Sequence[Sequence[float]]], path: int) -> list[float]:
        return [fmean(one[path] for one in cell) for cell in zip(*rows, strict=False)]

    return [
        _Line(
            f"layer {first.layer}, {first.paths[path]}",
            fmean(monitor.load[path] for monitor in monitors),
            mean([monitor.load_by_position for monitor in monitors], path),
            mean([monitor.load_by_frequency for monitor in monitors], path),
            {
                name: fmean(
                    m.load_by_domain[name][path] for m in monitors if name in m.load_by_domain
                )
                for name in first.load_by_domain
            },
        )
        for path in paths
    ]


def _draw(
    canvas: Canvas, y: float, line: _Line, blocks: Sequence[tuple[float, float, Sequence[float]]]
) -> None:
    """Name, load as a bar, and the three heat strips of one path."""
    spoken = "; ".join(" ".join(number(value, 2) for value in values) for _, _, values in blocks)
    group = canvas.group(
        title=f"{line.name}: load {percent(line.load)}; by position, frequency, domain: {spoken}"
    )
    canvas.text(0, y + 13, plain(line.name, 20), "", group)
    canvas.rect(_NAMES, y + 3, (max(1.0, 44 * line.load), _LINE - 6), "heat", group)
    canvas.text(_NAMES + 50, y + 13, percent(line.load), "quiet", group)
    for left, wide, values in blocks:
        for index, value in enumerate(values):
            canvas.rect(
                left + wide * index,
                y + 1,
                (wide - 1, _LINE - 2),
                "heat",
                group,
                opacity=0.04 + 0.96 * min(1.0, max(0.0, value)),
            )


def passage(row: Row) -> tuple[PassageLayer, ...]:
    """The passage of the first seed that has one, a copy a routed layer.

    Neighbours on the same path set are joined.
    """
    found = next((record.passage for record in row.good if record.passage), None)
    if found is None:
        return ()
    layers: list[PassageLayer] = []
    for layer, choices in sorted(found.choices.items(), key=lambda item: (len(item[0]), item[0])):
        legend = found.legend.get(layer, ())
        runs: list[Run] = []
        for token, choice in zip(found.tokens, choices, strict=False):
            name, classes = (
                (plain(legend[choice]) if choice < len(legend) else str(choice)),
                _colour(choice, len(legend)),
            )
            if runs and runs[-1].name == name:
                runs[-1] = Run(runs[-1].text + _visible(token), classes, name)
            else:
                runs.append(Run(_visible(token), classes, name))
        used = sorted(set(choices[: len(found.tokens)]))
        key = tuple(
            (
                _colour(choice, len(legend)),
                plain(legend[choice]) if choice < len(legend) else str(choice),
            )
            for choice in used
        )
        layers.append(PassageLayer(layer, tuple(runs), key))
    return tuple(layers)


def _colour(choice: int, count: int) -> str:
    """Of two path sets the first is left plain; more take the colours of the series in turn."""
    return f"p{choice % NUM_SERIES}" if count > 2 else ("p0" if choice else "plain")


def _visible(token: str) -> str:
    """A token with line breaks kept and other control characters as a dot."""
    return "".join(
        char if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cf", "Cs") else "·"
        for char in token
    )
