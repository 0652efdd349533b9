"""Show the routing of one router: loads by layer and kind of token, and a passage in colour."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from bench.board.model import Row
from bench.board.text import plain
from bench.figures.drawing import NUM_SERIES
from bench.pages.monitors import layers_of
from bench.record import LayerMonitor


@dataclass(frozen=True)
class Run:
    """Neighbouring tokens on the same set of paths: text, class of the colour, name of the set."""

    text: str
    classes: str
    name: str


@dataclass(frozen=True)
class PassageLayer:
    """A passage with the routing of one layer, and the key to its colours."""

    layer: str
    runs: tuple[Run, ...]
    key: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class PathLoad:
    """Share of tokens on one path of one layer, mean over seeds.

    Attributes:
        name: layer and path.
        load: share of all tokens.
        by_position: share in each of 16 equal parts of the sequence.
        by_frequency: share in each of 10 parts of the vocabulary, rare tokens first.
        by_domain: domain -> share.
    """

    name: str
    load: float
    by_position: Sequence[float]
    by_frequency: Sequence[float]
    by_domain: dict[str, float]


def routes(row: Row) -> list[PathLoad]:
    """Return the loads of a router, one for each layer and path.

    Of two paths only the upgrade is listed. A row without a choice has none.
    """
    return [line for layer in layers_of(row) for line in _loads(layer)]


def _loads(monitors: Sequence[LayerMonitor]) -> list[PathLoad]:
    """Return the loads of one layer's paths, averaged over seeds."""
    first = monitors[0]
    # With one path there is nothing to choose.
    if len(first.paths) < 2:
        return []

    def mean(rows: Sequence[Sequence[Sequence[float]]], path: int) -> list[float]:
        return [fmean(one[path] for one in cell) for cell in zip(*rows, strict=False)]

    def domain(name: str, path: int) -> float:
        # Seeds of a planted task may differ in their domains.
        having = [one.load_by_domain[name] for one in monitors if name in one.load_by_domain]
        return fmean(shares[path] for shares in having)

    return [
        PathLoad(
            f"layer {first.layer}, {first.paths[path]}",
            fmean(monitor.load[path] for monitor in monitors),
            mean([monitor.load_by_position for monitor in monitors], path),
            mean([monitor.load_by_frequency for monitor in monitors], path),
            {name: domain(name, path) for name in first.load_by_domain},
        )
        for path in (range(len(first.paths)) if len(first.paths) > 2 else (1,))
    ]


def passage_layers(row: Row) -> tuple[PassageLayer, ...]:
    """Return the passage of the first seed that has one, a copy per routed layer.

    Neighbouring tokens on the same set of paths are joined.
    """
    found = next((record.passage for record in row.good if record.passage), None)
    if found is None:
        return ()
    layers: list[PassageLayer] = []
    # Layers are keys of JSON, and therefore text: sort 2 before 10.
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
        # The key has the sets of this passage only; a bank of experts has too many.
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
    """Return the class of a path set's colour. Of two sets, the first stays plain."""
    return f"p{choice % NUM_SERIES}" if count > 2 else ("p0" if choice else "plain")


def _visible(token: str) -> str:
    """Return a token with line breaks kept, and other control characters as dots."""
    return "".join(
        char if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cf", "Cs") else "·"
        for char in token
    )
