"""Make rows from records: find the seeds of a row, and whether it may be ranked."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

from bench.board.model import Row, RowStatus, counts
from bench.board.text import seeds as seed_runs
from bench.record import Record

Match = Literal["flops", "tokens"]

_WORST_FIRST: tuple[RowStatus, ...] = ("failed", "diverged", "invalid", "off_budget")


def group_rows(records: Iterable[Record]) -> list[Row]:
    """Group records by row name, seeds and their router seeds in order."""
    rows: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        rows[record.cell.row].append(record)
    return [Row(name, tuple(sorted(rows[name], key=_place_in_row))) for name in sorted(rows)]


def _place_in_row(record: Record) -> tuple[int, int]:
    return record.cell.seed, record.row.router_seed


def preferring(match: Match, records: Iterable[Record]) -> list[Row]:
    """Return rows of the preferred mode where they have one, else of the other."""
    both = list(records)
    preferred = group_rows(record for record in both if record.cell.match == match)
    names = {row.name for row in preferred}
    return sorted(
        preferred + group_rows(r for r in both if r.cell.row not in names), key=lambda row: row.name
    )


def common_seeds(rows: Sequence[Row]) -> tuple[int, ...]:
    """Return the seeds to rank on: the largest set, of at least two, that most rows hold.

    So further seeds of one of two rows take no verdict away, and a row of few seeds takes none
    from the others. Without such a set it is the one that most rows have, of equals the larger,
    then the one that sorts first.
    """
    held = [frozenset(row.losses) for row in rows if row.losses]
    # The candidates: the set of each row, and the intersection of each two.
    shared = {one & other for one in held for other in held}
    common = [s for s in shared if len(s) > 1 and 2 * sum(s <= row for row in held) > len(held)]
    if common:
        return min((tuple(sorted(s)) for s in common), key=lambda seeds: (-len(seeds), seeds))
    sets = Counter(tuple(sorted(row)) for row in held)
    return min(sets, key=lambda chosen: (-sets[chosen], -len(chosen), chosen)) if sets else ()


def checked_row(row: Row, seeds: tuple[int, ...]) -> Row:
    """Return the row with its status; a row that may be ranked keeps the board's seeds only."""
    bad = [record for record in row.records if not counts(record)]
    status = next(
        (status for status in _WORST_FIRST for record in bad if record.status == status), "invalid"
    )
    # One bad seed takes the row out: to rank it on the others would be a selection.
    if bad:
        return replace(row, status=status, reason=_reasons(bad))
    # A mean over seeds of different experiments is the result of none.
    for name, values in (
        ("sources of the plugin", {record.provenance.router_hash for record in row.records}),
        ("options", {repr(sorted(record.row.options.items())) for record in row.records}),
        ("controls", {record.cell.control for record in row.records}),
    ):
        if len(values) > 1:
            return replace(
                row,
                status="mixed",
                reason=f"its seeds were run with {len(values)} different {name}",
            )
    missing = sorted(set(seeds) - set(row.losses))
    if missing or not row.losses:
        has = f"has seeds {seed_runs(list(row.losses))}, lacks {seed_runs(missing)}"
        of = f" (each of router seeds {seed_runs(row.router_seeds)})"
        reason = has + of * (len(row.router_seeds) > 1)
        return replace(row, status="incomplete", reason=reason)
    # Left out, not lost: the reason names them below the table.
    extra = sorted(set(row.losses) - set(seeds)) if seeds else []
    partial = sorted({record.cell.seed for record in row.records} - set(row.losses))
    kept = tuple(r for r in row.records if r.cell.seed not in (*extra, *partial))
    said = [f"seeds {seed_runs(extra)} left out: they are not common to the rows"] * bool(extra)
    said += [f"seeds {seed_runs(partial)} left out: a router seed is missing"] * bool(partial)
    return replace(row, records=kept, reason="; ".join(said))


def _reasons(bad: Sequence[Record]) -> str:
    """Write why records do not count, seeds of one cause together."""
    causes: dict[str, list[int]] = {}
    for record in bad:
        said = record.reason or ("no finite loss" if record.status == "ok" else record.status)
        causes.setdefault(said.strip().removesuffix("."), []).append(record.cell.seed)
    return "; ".join(
        f"seed{'s' * (len(found) > 1)} {seed_runs(found)}: {said}" for said, found in causes.items()
    )
