"""Make rows from records: find the seeds of a row, and whether it may be ranked."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Literal

from bench.board.model import Row, RowStatus, counts
from bench.board.text import seeds as seed_runs
from bench.record import Record
from bench.stats.align import at_look

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
    """Return the row with its status; a row that may be ranked keeps the board's seeds only.

    It may lack some of them: rows are compared on the seeds that both have. With fewer than two it
    is incomplete.
    """
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
        ("recipes", {repr((record.row.lr_scale, record.row.training)) for record in row.records}),
        ("controls", {record.cell.control for record in row.records} - {None}),
    ):
        if len(values) > 1:
            return replace(
                row,
                status="mixed",
                reason=f"its seeds were run with {len(values)} different {name}",
            )
    common, extra = row.losses.keys() & set(seeds), row.losses.keys() - set(seeds)
    if not row.losses or len(common) < min(2, len(seeds)):
        return _incomplete(row, seeds)
    partial = {record.cell.seed for record in row.records} - row.losses.keys()
    said: list[str] = []
    if len(common) < len(seeds):
        said.append(f"compared on {len(common)} of {len(seeds)} seeds ({seed_runs([*common])})")
    if seeds and extra:
        said.append(f"seeds {seed_runs([*extra])} left out: they are not common to the rows")
    if partial:
        said.append(f"seeds {seed_runs([*partial])} left out: a router seed is missing")
    # Left out, not lost: the reason names them below the table.
    gone = partial | (extra if seeds else set())
    kept = tuple(record for record in row.records if record.cell.seed not in gone)
    return replace(row, records=kept, reason="; ".join(said))


def _incomplete(row: Row, seeds: Collection[int]) -> Row:
    """Mark a row as incomplete: it has too few seeds of the board to be compared."""
    has = f"has seeds {seed_runs([*row.losses])}"
    if len(row.router_seeds) > 1:
        has += f" (each of router seeds {seed_runs(row.router_seeds)})"
    said = f"{has}; a comparison needs two of {seed_runs([*seeds])}"
    return replace(row, status="incomplete", reason=said)


def with_two_seeds(rows: Sequence[Row], looks: Sequence[int]) -> list[Row]:
    """Mark rows as incomplete that have too few seeds of the look to be paired."""
    ranked = [row for row in rows if row.status == "ok"]
    seeds = at_look({seed for row in ranked for seed in row.losses}, looks)
    short = [row for row in ranked if len(row.losses.keys() & seeds) < min(2, len(seeds))]
    if not short:
        return list(rows)
    return with_two_seeds([_incomplete(r, seeds) if r in short else r for r in rows], looks)


def _reasons(bad: Sequence[Record]) -> str:
    """Write why records do not count, seeds of one cause together."""
    causes: dict[str, list[int]] = {}
    for record in bad:
        said = record.reason or ("no finite loss" if record.status == "ok" else record.status)
        causes.setdefault(said.strip().removesuffix("."), []).append(record.cell.seed)
    return "; ".join(
        f"seed{'s' * (len(found) > 1)} {seed_runs(found)}: {said}" for said, found in causes.items()
    )
