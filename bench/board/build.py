"""From records on disk to boards: which rows are ranked together, which are not, and why.

Every choice is a function of the records alone, so that the same records make the same board.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from bench.board.model import Board, Row, RowStatus, comparison, counts
from bench.board.text import seeds as seed_runs
from bench.board.verdicts import Entrant, Judgement, judge_rows
from bench.errors import UserError, unknown
from bench.record import CellId, Record, read_records

Match = Literal["flops", "tokens"]

_SENSITIVITY = re.compile(r"@lr[0-9.e+-]+$")
_RANKED_ROLES = ("ranked", "control", "twin")
_WORST_FIRST: tuple[RowStatus, ...] = ("failed", "invalid", "off_budget")


def build_board(root: Path, suite: str | None = None) -> list[Board]:
    """Every board below `root`, by suite.

    Args:
        root: a tree of records, `results` or `runs`.
        suite: only this one.

    Raises:
        UserError: no records, no such suite, a record that was edited, or one cell with two records.
    """
    suites = sorted({path.relative_to(root).parts[0] for path in root.rglob("seed-*.json")})
    if not suites:
        raise UserError(f"No records below {str(root)!r}. Run `python -m bench run --out {root}` first, or name another folder.")
    if suite is not None and suite not in suites:
        raise unknown("suite", suite, suites, f"Suites are looked for below {str(root)!r}.")
    return [board for name in suites if suite in (None, name) for board in boards_of(_read(root / name))]


def boards_of(records: Iterable[Record]) -> list[Board]:
    """The boards of one suite's records: one a budget, the one with most records first, with the equal-token ranking inside it."""
    by_budget: dict[float, list[Record]] = defaultdict(list)
    for record in records:
        by_budget[record.cell.budget].append(record)
    boards = [_board(group) for _, group in sorted(by_budget.items(), key=lambda item: (-len(item[1]), item[0]))]
    return [
        replace(board, other_budgets=tuple(row for other in boards if other.budget != board.budget for row in other.ranked))
        for board in boards
    ]


def _read(folder: Path) -> list[Record]:
    places: dict[tuple[str, int, str, float], Path] = {}
    records: list[Record] = []
    for path, record in read_records(folder):
        cell = (record.cell.row, record.cell.seed, record.cell.match, record.cell.budget)
        if cell in places:
            raise UserError(
                f"{path} and {places[cell]} are records of one cell, {cell[0]!r} seed {cell[1]}. Delete the one you did not mean."
            )
        places[cell] = path
        records.append(record)
    return records


def _board(records: Sequence[Record]) -> Board:
    """The board of one suite and budget."""
    sensitivity = [record for record in records if is_sensitivity(record.cell)]
    candidates = [record for record in records if not is_sensitivity(record.cell)]
    together, apart = _separate(candidates or records)
    modes: tuple[Match, ...] = ("flops", "tokens")
    present: list[Match] = [mode for mode in modes if any(r.cell.match == mode and r.cell.role in _RANKED_ROLES for r in together)]
    boards = [_ranking(mode, together, sensitivity, apart) for mode in present or ["flops"]]
    return replace(boards[0], equal_tokens=boards[1]) if len(boards) > 1 else boards[0]


def _ranking(match: Match, records: Sequence[Record], sensitivity: Sequence[Record], apart: list[tuple[Record, str]]) -> Board:
    """One ranking: rows of the roles that compete, at equal FLOPs or equal tokens, and what stands beside them."""
    competing = _rows(r for r in records if r.cell.role in _RANKED_ROLES and r.cell.match == match)
    chosen = _common_seeds(competing)
    checked = [_check(row, chosen) for row in competing]
    ranked = [row for row in checked if row.status == "ok"]
    brackets = [_check(row, ()) for row in _preferring("tokens", (r for r in records if r.cell.role == "bracket"))]
    informed = [_check(row, ()) for row in _preferring(match, (r for r in records if r.cell.role == "informed"))]
    config = (ranked or checked or brackets or informed)[0].first.provenance.config
    judgement = judge_rows([_entrant(row) for row in checked], comparison(config)) if ranked else Judgement()
    seeds = judgement.seeds or chosen
    ranked = [replace(row, records=tuple(record for record in row.records if record.cell.seed in seeds)) for row in ranked]
    first = records[0].cell
    return Board(
        suite=first.suite,
        budget=first.budget,
        match=match,
        config=config,
        seeds=seeds,
        ranked=tuple(sorted(ranked, key=lambda row: (judgement.ranks[row.name].mean, row.name))),
        brackets=tuple(row for row in brackets if row.status == "ok"),
        informed=tuple(row for row in informed if row.status == "ok"),
        unranked=tuple(row for row in (*checked, *brackets, *informed) if row.status != "ok"),
        sensitivity=tuple(_rows(sensitivity)),
        apart=tuple(apart),
        judgement=judgement,
    )


def _entrant(row: Row) -> Entrant:
    role, control = row.role, row.first.cell.control
    twin_of = row.name.removesuffix("@twin") if role == "twin" else None
    return Entrant(row.name, control, role == "ranked", twin_of, row.losses if row.status == "ok" else {})


def is_sensitivity(cell: CellId) -> bool:
    """Whether a cell belongs to a learning-rate sweep, `row@lr0.5`, on seeds that no ranking uses."""
    return _SENSITIVITY.search(cell.row) is not None


def _conditions(record: Record) -> dict[str, object]:
    """What two records must share to be ranked together."""
    made = record.provenance
    return {
        "rules version": made.rules_version,
        "data": made.data_hash,
        f"configuration at equal {record.cell.match}": made.config_hash,
        "device": made.device,
        "processor": made.processor,
        "threads": made.threads,
        "dtype": made.dtype,
        "torch": made.versions.get("torch", ""),
    }


def _separate(records: Sequence[Record]) -> tuple[list[Record], list[tuple[Record, str]]]:
    """The largest set of records made under the same conditions, and the others with what differs.

    Conditions are settled one after the other, by majority; a tie goes to the value that sorts first.
    """
    together, apart = list(records), list[tuple[Record, str]]()
    for name in sorted({name for record in records for name in _conditions(record)}):
        votes = Counter(str(_conditions(record)[name]) for record in together if name in _conditions(record))
        if len(votes) < 2:
            continue
        most = min(votes, key=lambda value: (-votes[value], value))
        differs = [r for r in together if name in _conditions(r) and str(_conditions(r)[name]) != most]
        apart += [(record, f"{name} {_conditions(record)[name]}, the board has {most}") for record in differs]
        gone = {id(record) for record in differs}
        together = [record for record in together if id(record) not in gone]
    return together, sorted(apart, key=lambda pair: (pair[0].cell.row, pair[0].cell.match, pair[0].cell.seed))


def _rows(records: Iterable[Record]) -> list[Row]:
    """Records grouped by row name, seeds in order."""
    rows: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        rows[record.cell.row].append(record)
    return [Row(name, tuple(sorted(rows[name], key=lambda record: record.cell.seed))) for name in sorted(rows)]


def _preferring(match: Match, records: Iterable[Record]) -> list[Row]:
    """Rows of the preferred mode where they have one, else of the other."""
    both = list(records)
    preferred = _rows(record for record in both if record.cell.match == match)
    names = {row.name for row in preferred}
    return sorted(preferred + _rows(r for r in both if r.cell.row not in names), key=lambda row: row.name)


def _common_seeds(rows: Sequence[Row]) -> tuple[int, ...]:
    """The seeds to rank on: the set that most rows have; of equals the larger, then the one that sorts first."""
    sets = Counter(tuple(row.losses) for row in rows if row.losses)
    return min(sets, key=lambda chosen: (-sets[chosen], -len(chosen), chosen)) if sets else ()


def _check(row: Row, seeds: tuple[int, ...]) -> Row:
    """The row with its status; a row that may be ranked keeps the board's seeds only."""
    bad = [record for record in row.records if not counts(record)]
    status = next((status for status in _WORST_FIRST for record in bad if record.status == status), "invalid")
    if bad:
        return replace(row, status=status, reason=_reasons(bad))
    for name, values in (
        ("sources of the plugin", {record.provenance.plugin_hash for record in row.records}),
        ("options", {repr(sorted(record.cell.options.items())) for record in row.records}),
        ("controls", {record.cell.control for record in row.records}),
    ):
        if len(values) > 1:
            return replace(row, status="mixed", reason=f"its seeds were run with {len(values)} different {name}")
    missing = sorted(set(seeds) - set(row.losses))
    if missing:
        return replace(row, status="incomplete", reason=f"has seeds {seed_runs(list(row.losses))}, lacks {seed_runs(missing)}")
    extra = sorted(set(row.losses) - set(seeds)) if seeds else []
    kept = tuple(record for record in row.records if record.cell.seed not in extra)
    return replace(row, records=kept, reason=f"seeds {seed_runs(extra)} left out: most rows lack them" if extra else "")


def _reasons(bad: Sequence[Record]) -> str:
    """Why records do not count, seeds of one cause together."""
    causes: dict[str, list[int]] = {}
    for record in bad:
        said = record.reason or ("no finite loss" if record.status == "ok" else record.status)
        causes.setdefault(said.strip().removesuffix("."), []).append(record.cell.seed)
    return "; ".join(f"seed{'s' * (len(found) > 1)} {seed_runs(found)}: {said}" for said, found in causes.items())
