"""Render `report.html`: all that the records hold about a board, in one file that loads nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from bench.board.columns import (
    Column,
    TableCell,
    first_columns,
    verdict_columns,
)
from bench.board.model import Board, Row
from bench.board.text import MISSING, number, percent, plain, quantity, seeds
from bench.figures.board_figures import board_figures
from bench.figures.drawing import Figure, variables
from bench.figures.load_charts import settling, several
from bench.pages import details, monitors, speed
from bench.pages.cost_columns import audit_columns, cost_columns
from bench.pages.domains import domain_differences
from bench.pages.leaderboard import apart, facts, headline, out, place_columns
from bench.pages.legends import Legend, legends, mark
from bench.pages.limits import limits
from bench.pages.remarks import disagreements, remarks, summary, waivers
from bench.pages.routes import route_columns
from bench.pages.templating import environment
from bench.pages.truth import truth_columns
from bench.record import Provenance
from bench.record.speed import SpeedRun

_STATUS = {
    "incomplete": "incomplete: seeds are missing",
    "mixed": "mixed: seeds of different experiments",
    "off_budget": "off budget",
    "invalid": "invalid",
    "diverged": "diverged",
    "failed": "failed",
}


@dataclass(frozen=True)
class _Line:
    """One row of a table: the names to filter it by, and its cells."""

    anchor: str
    name: str
    mark: str
    family: str
    kind: str
    cells: tuple[TableCell, ...]


@dataclass(frozen=True)
class _Table:
    """A table that can be sorted."""

    slug: str
    title: str
    columns: Sequence[Column]
    lines: list[_Line]
    legends: list[Legend]


@dataclass(frozen=True)
class _Router:
    """The section of one row."""

    anchor: str
    name: str
    about: str
    routes: list[details.PathLoad]
    layers: tuple[tuple[str, ...], list[tuple[str, ...]]]
    over_training: list[Figure]
    passage: tuple[details.PassageLayer, ...]
    domain: str
    auxiliary: list[tuple[str, str]]


def render_report(boards: Sequence[Board], speeds: Sequence[SpeedRun] = ()) -> str:
    """Render the report as HTML; a pure function of the boards and of the runs of `bench speed`."""
    template = environment("bench.pages", "templates", html=True).get_template("report.html.j2")
    return template.render(
        boards=[_section(board, f"board{index}") for index, board in enumerate(boards)],
        speeds=[speed.section(run) for run in speeds],
        light=variables(False),
        dark=variables(True),
    )


def _section(board: Board, anchor: str) -> dict[str, Any]:
    """Return the values that the template shows of one board."""
    # By index: names of rows may hold signs that no anchor may.
    anchors = {row.name: f"{anchor}-{index}" for index, row in enumerate(board.rows)}
    failed = (row for row in board.unranked if not row.losses)
    return {
        "board": board,
        "anchor": anchor,
        "title": board.title,
        "summary": summary(board),
        "purpose": str(board.config.get("purpose", "")),
        "limits": limits(board, _whole, _whole),
        "headline": headline(board.rows[0].first) if board.rows else ([], []),
        "facts": facts(board),
        **_tables(board, anchor, anchors),
        "families": sorted({plain(row.first.cell.family) for row in board.rows}),
        "remarks": remarks(board, _whole),
        "waivers": waivers(board, _whole),
        "disagreements": disagreements(board, _whole),
        "figures": board_figures(board),
        "domains": domain_differences(board),
        "statuses": _STATUS,
        "out": out(board),
        "apart": apart(board),
        "routers": [_router(row, anchors[row.name]) for row in board.rows],
        "budgets": [_budget(row) for row in board.rows],
        "provenance": [_provenance(row) for row in (*board.rows, *failed)],
    }


def _tables(board: Board, anchor: str, anchors: Mapping[str, str]) -> dict[str, Any]:
    """Return the tables of one board; `anchors` has the anchor of each row."""

    def lines(slug: str, title: str, columns: Sequence[Column], rows: Sequence[Row]) -> _Table:
        # Without lines the template leaves the table out, heading included.
        made = [_line(board, row, anchors.get(row.name, ""), columns) for row in rows]
        legend = legends(board, rows, columns) if made else []
        return _Table(f"{anchor}-{slug}", title, columns if made else (), made, legend)

    tables = {
        "comparisons": ("Comparisons", [*place_columns(board), *verdict_columns(board)]),
        "paths": ("Right paths", truth_columns(board)),
        "routes": ("Routes", route_columns(board)),
        "cost": ("Cost", cost_columns(board)),
        "audit": ("Audit", audit_columns(board)),
    }
    watched = [row for row in board.rows if monitors.layers_of(row)]
    tokens = board.equal_tokens
    return {
        "first": lines("table", "Board", first_columns(board), board.rows),
        "tables": [lines(slug, *table, board.rows) for slug, table in tables.items()],
        "monitors": lines("monitors", "Routing", monitors.monitor_columns(board), watched),
        "tokens": lines(
            "tokens",
            "Equal FLOPs and equal tokens",
            [*place_columns(tokens), *verdict_columns(tokens)] if tokens else [],
            tokens.ranked if tokens else [],
        ),
    }


def _whole(text: str) -> str:
    return plain(text, 400)


def _line(board: Board, row: Row, anchor: str, columns: Sequence[Column]) -> _Line:
    kind = row.role if row.status == "ok" else _STATUS[row.status]
    kind = "ranked" if row in board.ranked else kind
    cells = tuple(column.cell(row) for column in columns)
    return _Line(anchor, plain(row.name), mark(row), plain(row.first.cell.family), kind, cells)


def _router(row: Row, anchor: str) -> _Router:
    first = row.first
    # Options of the first seed: a row with several sets of them is not ranked.
    given = sorted(first.row.options.items())
    options = ", ".join(f"{name}={value!r}" for name, value in given) or "defaults"
    auxiliary = sorted({name for record in row.good for name in record.auxiliary})
    means = [
        (plain(name), number(fmean(r.auxiliary[name] for r in row.good if name in r.auxiliary), 4))
        for name in auxiliary
    ]
    # One seed's passage is enough to look at.
    found = next((record.passage for record in row.good if record.passage), None)
    return _Router(
        anchor=anchor,
        name=plain(row.name),
        about=_whole(f"{first.cell.family}; {first.cell.site} site; options: {options}"),
        routes=details.routes(row),
        layers=monitors.layer_table(row),
        over_training=[*settling(row), *several(row)],
        passage=details.passage_layers(row),
        domain=plain(found.domain) if found else "",
        auxiliary=means,
    )


def _budget(row: Row) -> tuple[str, ...]:
    """Return name, target, capacity, width, layers, spends, tolerance and headline.

    They are of the first seed, but for the spends, which are means.
    """
    budget = row.first.budget
    if budget is None:
        return (plain(row.name), *(MISSING,) * 8)
    calibrated, validated = (
        row.mean(lambda record, name=name: getattr(record.budget, name) if record.budget else None)
        for name in ("calibration_spend", "validation_spend")
    )
    return (
        plain(row.name),
        quantity(budget.target_flops),
        percent(budget.capacity),
        MISSING if budget.expert_width is None else str(budget.expert_width),
        ", ".join(map(str, budget.routed_layers)) or MISSING,
        percent(calibrated, 2),
        percent(validated, 2),
        f"± {percent(budget.tolerance)}",
        budget.headline,
    )


def _provenance(row: Row) -> dict[str, Any]:
    """Return the provenance of a row's records: every distinct value, seeds together."""
    made, first = [record.provenance for record in row.records], row.records[0]

    def distinct(values: Sequence[str]) -> str:
        return _whole(", ".join(dict.fromkeys(values)))

    fields = {
        "command": distinct([one.command for one in made]),
        "commit": distinct([_commit(one) for one in made]),
        "started": f"{min(one.started for one in made)} to {max(one.started for one in made)}",
        "machine": distinct([_machine(one) for one in made]),
        "versions": distinct([_versions(one) for one in made]),
        "rules": distinct([str(one.rules_version) for one in made]),
        "configuration": distinct([one.config_hash[:16] for one in made]),
        "plugin": distinct([one.router_hash[:16] for one in made]),
        "data": distinct([one.data_hash[:16] for one in made]),
        "seeds": seeds([record.cell.seed for record in row.records]),
        "router seeds": seeds(row.router_seeds),
        "content keys": distinct([record.key[:16] for record in row.records]),
        "causality": plain(first.causality.detail, 200) if first.causality else MISSING,
    }
    return {"name": plain(row.name), "fields": fields}


def _commit(made: Provenance) -> str:
    return made.commit[:12] + " with uncommitted changes" * made.dirty


def _machine(made: Provenance) -> str:
    return f"{made.device}, {made.processor}, {made.threads} threads, {made.dtype}"


def _versions(made: Provenance) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(made.versions.items()))
