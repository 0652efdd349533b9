"""Build boards from records: choose the rows to rank together, and give a reason for all others.

Every choice depends on the records alone, so that equal records make equal boards.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.board.conditions import separate
from bench.board.declarations import declaration_of
from bench.board.model import Board, Row, comparison
from bench.board.rows import (
    Match,
    checked_row,
    common_seeds,
    group_rows,
    preferring,
    with_two_seeds,
)
from bench.board.verdicts import Entrant, Judgement, judge_rows
from bench.config.roles import sensitivity_name, twin_original
from bench.config.row import Role, RowConfig
from bench.errors import UserError, unknown
from bench.record import REPRODUCED, Record, read_records

STUDIES = "studies"
"""Folder of a tree of records for studies, which have their own pages."""

# Controls and twins compete: beating them is the point.
_RANKED_ROLES = ("ranked", "control", "twin")


def build_board(root: Path, suite: str | None = None) -> list[Board]:
    """Return all boards below `root`: text first, then the boards with more seeds first.

    Args:
        root: a tree of records, `results` or `runs`.
        suite: only this suite.

    Raises:
        UserError: no records, no such suite, an edited record, or two records of one cell.
    """
    suites = sorted(
        {path.relative_to(root).parts[0] for path in root.rglob("seed-*.json")}
        - {STUDIES, REPRODUCED}
    )
    if not suites:
        raise UserError(
            f"No records below {str(root)!r}. Run `python -m bench run --out {root}` first, or "
            "name another folder."
        )
    if suite is not None and suite not in suites:
        raise unknown("suite", suite, suites, f"Suites are looked for below {str(root)!r}.")
    boards = [
        board for name in suites if suite in (None, name) for board in boards_of(_read(root / name))
    ]
    return sorted(boards, key=_place)


def _place(board: Board) -> tuple[bool, int]:
    """Return the place of a board in the order: generated data last, many seeds first."""
    return bool(board.config.get("data", {}).get("planted")), -len(board.seeds)


def boards_of(records: Iterable[Record]) -> list[Board]:
    """Return the boards of one suite, one per budget, the board with most records first.

    The ranking at equal tokens is part of its board.
    """
    by_budget: dict[float, list[Record]] = defaultdict(list)
    for record in records:
        by_budget[record.cell.budget].append(record)
    boards = [
        _board(group)
        for _, group in sorted(by_budget.items(), key=lambda item: (-len(item[1]), item[0]))
    ]
    # Each board shows the rows of the other budgets faintly, for the loss over cost.
    return [
        replace(
            board,
            other_budgets=tuple(
                row for other in boards if other.budget != board.budget for row in other.ranked
            ),
        )
        for board in boards
    ]


def _read(folder: Path) -> list[Record]:
    places: dict[tuple[str, int, int, str, float], Path] = {}
    records: list[Record] = []
    for path, record in read_records(folder):
        id, router_seed = record.cell, record.row.router_seed
        cell = (id.row, id.seed, router_seed, id.match, id.budget)
        # Two records of one cell would count twice; nobody but the user knows the right one.
        if cell in places:
            raise UserError(
                f"{path} and {places[cell]} are records of one cell, {id.row!r} seed {id.seed} "
                f"with router seed {router_seed}. Delete the one you did not mean."
            )
        places[cell] = path
        records.append(record)
    return records


def _board(records: Sequence[Record]) -> Board:
    """Return the board of one suite and budget."""
    # Cells of the learning-rate sweep are shown in their own figure and ranked nowhere.
    sensitivity = [record for record in records if is_sensitivity(record)]
    candidates = [record for record in records if not is_sensitivity(record)]
    together, apart = separate(candidates or records)
    modes: tuple[Match, ...] = ("flops", "tokens")
    present: list[Match] = [
        mode
        for mode in modes
        if any(r.cell.match == mode and r.cell.role in _RANKED_ROLES for r in together)
    ]
    boards = [_ranking(mode, together, sensitivity, apart) for mode in present or ["flops"]]
    return replace(boards[0], equal_tokens=boards[1]) if len(boards) > 1 else boards[0]


def _ranking(
    match: Match,
    records: Sequence[Record],
    sensitivity: Sequence[Record],
    apart: list[tuple[Record, str]],
) -> Board:
    """Return one ranking, at equal FLOPs or equal tokens, with the unranked rows beside it."""
    competing = group_rows(
        r for r in records if r.cell.role in _RANKED_ROLES and r.cell.match == match
    )
    # Rows are compared on common seeds, and every row is checked for them.
    chosen = common_seeds(competing)
    checked = [checked_row(row, chosen) for row in competing]
    brackets = _beside(records, "bracket", "tokens")
    informed = _beside(records, "informed", match)
    declaring = [row for row in checked if row.status == "ok"] or checked or brackets or informed
    declared = declaration_of([record for row in declaring for record in row.records])
    config = declared.config
    checked = with_two_seeds(checked, comparison(config).get("looks") or ())
    ranked = [row for row in checked if row.status == "ok"]
    listed = [row.first.row for row in checked]
    missing = _not_run(config, {row.name for row in checked}) if _official(records) else []
    entrants = [*(_entrant(row, listed) for row in checked), *missing]
    judgement = judge_rows(entrants, comparison(config)) if ranked else Judgement()
    seeds = judgement.seeds or chosen
    # Means are over the seeds of the look alone, like the verdicts.
    ranked = [
        replace(row, records=tuple(record for record in row.records if record.cell.seed in seeds))
        for row in ranked
    ]
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
        sensitivity=tuple(group_rows(sensitivity)),
        apart=tuple(apart),
        schedules=declared.schedules,
        judgement=replace(judgement, notes=(*judgement.notes, *declared.notes)),
    )


def _beside(records: Sequence[Record], role: Role, match: Match) -> list[Row]:
    """Return the checked rows of a role that is not ranked, of one match where there are two."""
    own = (record for record in records if record.cell.role == role)
    return [checked_row(row, ()) for row in preferring(match, own)]


def _official(records: Sequence[Record]) -> bool:
    """Return whether an official run made a record. Only such a run promises the whole roster."""
    return any("--official" in record.provenance.command.split() for record in records)


def _not_run(config: Mapping[str, Any], run: set[str]) -> list[Entrant]:
    """Return the ranked rows of the suite's roster without a record.

    On an official board they count in the correction, as declared. A user's own run declares only
    the rows that it asks for.
    """
    rows = [
        row
        for row in config.get("rows") or ()
        if row.get("role") == "ranked" and row["name"] not in run
    ]
    return [Entrant(row["name"], row.get("control") or None, True, None, {}) for row in rows]


def _entrant(row: Row, listed: Sequence[RowConfig]) -> Entrant:
    role, control = row.role, row.control
    twin_of = _twin_of(row.first.row, listed) if role == "twin" else None
    return Entrant(
        row.name, control, role == "ranked", twin_of, row.losses if row.status == "ok" else {}
    )


def _twin_of(twin: RowConfig, listed: Sequence[RowConfig]) -> str | None:
    """Return the row that a twin repeats, or None if that is unclear."""
    try:
        return twin_original(twin, listed)
    except UserError:
        return None


def is_sensitivity(record: Record) -> bool:
    """Return whether a record belongs to the learning-rate sweep of its suite.

    It does if it is no row of the suite, and has the seed, the name and the rate of the sweep.
    """
    config, cell = record.provenance.config, record.cell
    swept: Mapping[str, Any] = config.get("sensitivity") or {}
    rows = {row["name"]: row.get("lr_scale", 1.0) for row in config.get("rows") or ()}
    if cell.row in rows or cell.seed != swept.get("seed"):
        return False
    return any(
        cell.row == sensitivity_name(name, scale) and record.row.lr_scale == own * scale
        for name, own in rows.items()
        for scale in (1.0, *(swept.get("lr_scales") or ()))
    )
