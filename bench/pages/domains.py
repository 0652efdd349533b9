"""Compute differences by domain, with intervals over seeds and validation documents."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from bench.board.model import Board, Row
from bench.board.text import BITS, interval, number, percent
from bench.figures.lines import looks
from bench.stats import hierarchical_bootstrap
from bench.stats.bootstrap import Documents

_RESAMPLES = 1000


@dataclass(frozen=True)
class DomainTable:
    """A table of differences, with a note on the coverage of its intervals."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str


def domain_differences(board: Board) -> DomainTable | None:
    """Return coloured rows minus the matched dense model, by domain; None without documents.

    The losses are those at the calibrated setting, because an interpolated headline has no
    documents.
    """
    control = next((row for row in board.ranked if row.name == board.matched_control), None)
    theirs = _documents(control) if control else {}
    if not theirs:
        return None
    styles = looks(board)
    found = {
        row.name: {
            one.domain: one for one in hierarchical_bootstrap(mine, theirs, resamples=_RESAMPLES)
        }
        for row in board.ranked
        if not styles[row.label].faint
        and row is not control
        and _shared(mine := _documents(row), theirs)
    }
    if not found:
        return None
    names = sorted({name for by_domain in found.values() for name in by_domain})
    lines: list[tuple[str, ...]] = []
    for row, by_domain in found.items():
        cells = [by_domain[name] for name in names if name in by_domain]
        texts = [
            f"{number(BITS * one.mean, signed=True)} "
            f"{interval(BITS * one.low, BITS * one.high, signed=True)}"
            for one in cells
        ]
        lines.append((row, *texts))
    # All intervals have the same seeds, so any of them gives the coverage.
    some = next(iter(next(iter(found.values())).values()))
    note = (
        f"Bits per byte to {board.matched_control} at the calibrated setting, with bootstrap "
        f"intervals over {some.seeds} seeds and the validation documents. They are nominal 95 % "
        "intervals; at this number of seeds such an interval may hold the truth in only "
        f"{percent(some.coverage, 0)} of cases. They carry no verdict."
    )
    return DomainTable(("router", *names), tuple(lines), note)


def _documents(row: Row) -> Documents:
    """Return seed -> documents common to its router seeds, with their mean nats."""
    found: dict[int, dict[str, tuple[str, float, float]]] = {}
    for seed in row.losses:
        own = [r.documents for r in row.good if r.cell.seed == seed and r.documents]
        if len(own) == len(row.router_seeds):
            common = [name for name in own[0] if all(name in one for one in own)]
            found[seed] = {name: _mean([one[name] for one in own]) for name in common}
    return found


def _mean(found: Sequence[tuple[str, float, float]]) -> tuple[str, float, float]:
    domain, _, size = found[0]
    return domain, fmean(nats for _, nats, _ in found), size


def _shared(mine: Documents, theirs: Documents) -> bool:
    """Return whether some document is in every common seed of both rows."""
    seeds = mine.keys() & theirs.keys()
    return bool(seeds) and bool(
        set[str].intersection(*(set(one[seed]) for one in (mine, theirs) for seed in seeds))
    )
