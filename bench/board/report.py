"""`report.html`: everything the records hold about a board, in one file that loads nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bench.board import details, monitors
from bench.board.columns import Cell, Column, audit_columns, cost_columns, verdict_columns
from bench.board.domains import domain_differences
from bench.board.figures import figures
from bench.board.markdown import MARKS, MATCHES, rank_text
from bench.board.model import Board, Row, comparison
from bench.board.remarks import disagreements, remarks, summary
from bench.board.svg import Figure, stylesheet, variables
from bench.board.text import BITS, MISSING, number, percent, plain, quantity, seeds
from bench.board.truth import truth_columns
from bench.record import Record

_STATUS = {
    "incomplete": "incomplete: seeds are missing",
    "mixed": "mixed: seeds of different experiments",
    "off_budget": "off budget",
    "invalid": "invalid",
    "failed": "failed",
}


@dataclass(frozen=True)
class _Line:
    """One row of the table: what to filter it by, and its cells."""

    anchor: str
    name: str
    mark: str
    family: str
    kind: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class _Router:
    """The section of one row."""

    anchor: str
    name: str
    about: str
    routes: Figure | None
    layers: tuple[tuple[str, ...], list[tuple[str, ...]]]
    settling: list[Figure]
    passage: tuple[details.PassageLayer, ...]
    domain: str
    auxiliary: list[tuple[str, str]]


def render_report(boards: Sequence[Board]) -> str:
    """The report as HTML; a pure function of the boards."""
    environment = Environment(
        loader=PackageLoader("bench.board"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plain"] = lambda text: plain(str(text), 400)
    return environment.get_template("report.html").render(
        boards=[_section(board, f"board{index}") for index, board in enumerate(boards)],
        light=Markup(variables(False)),
        dark=Markup(variables(True)),
        figure_css=Markup(stylesheet()),
    )


def _section(board: Board, anchor: str) -> dict[str, object]:
    """What the template shows of one board."""
    declared = comparison(board.config)
    kept = {id(row): index for index, row in enumerate(_shown(board))}
    columns = [
        *_places(board),
        *verdict_columns(board),
        *truth_columns(board),
        *cost_columns(board),
        *audit_columns(board),
    ]
    tokens, watched = board.equal_tokens, monitors.monitor_columns(board)
    return {
        "anchor": anchor,
        "title": board.title,
        "summary": summary(board),
        "purpose": str(board.config.get("purpose", "")),
        "facts": [
            (
                "Budget",
                f"{percent(board.budget, 0)} of the routed full-path cost, at equal {MATCHES[board.match]}",
            ),
            (
                "Headline",
                f"mean over {', '.join(_shown(board)[0].first.headline_domains)}"
                if _shown(board)
                else MISSING,
            ),
            ("Seeds", seeds(board.seeds)),
            (
                "Declared",
                f"family-wise level {declared['alpha']:g}, margin {number(BITS * declared['margin'], 4)} bits per byte",
            ),
        ],
        "columns": columns,
        "lines": [_line(board, row, f"{anchor}-{kept[id(row)]}", columns) for row in _shown(board)],
        "families": sorted({plain(row.first.cell.family) for row in _shown(board)}),
        "remarks": remarks(board, _whole),
        "figures": figures(board),
        "domains": domain_differences(board),
        "monitors_columns": watched,
        "monitors_lines": [
            _line(board, row, f"{anchor}-{kept[id(row)]}", watched)
            for row in _shown(board)
            if monitors.layers_of(row)
        ],
        "has_sensitivity": bool(board.sensitivity),
        "tokens_note": disagreements(board, _whole),
        "tokens_columns": [*_places(tokens), *verdict_columns(tokens)] if tokens else [],
        "tokens_lines": [
            _line(tokens, row, "", [*_places(tokens), *verdict_columns(tokens)])
            for row in tokens.ranked
        ]
        if tokens
        else [],
        "out": _out(board),
        "apart": _apart(board),
        "routers": [_router(row, f"{anchor}-{kept[id(row)]}") for row in _shown(board)],
        "audits": [_audit(row) for row in _shown(board)],
        "provenance": [
            _provenance(row)
            for row in (*_shown(board), *(row for row in board.unranked if not row.losses))
        ],
    }


def _whole(text: str) -> str:
    return plain(text, 400)


def _shown(board: Board) -> tuple[Row, ...]:
    return board.rows


def _places(board: Board) -> list[Column]:
    ranks = board.judgement.ranks

    def place(row: Row) -> Cell:
        return (
            Cell(rank_text(ranks[row.name]), ranks[row.name].low)
            if row in board.ranked
            else Cell(MISSING)
        )

    def tier(row: Row) -> Cell:
        return (
            Cell(str(ranks[row.name].tier), ranks[row.name].tier)
            if row in board.ranked
            else Cell(MISSING)
        )

    return [
        Column("tier", "rows of one tier are not told apart from its first row", tier),
        Column("rank", "the ranks that the row may hold", place),
    ]


def _line(board: Board, row: Row, anchor: str, columns: Sequence[Column]) -> _Line:
    kind = row.role if row.status == "ok" else _STATUS[row.status]
    cells = tuple(column.cell(row) for column in columns)
    kind = "ranked" if row in board.ranked else kind
    return _Line(
        anchor, plain(row.name), MARKS.get(row.role, ""), plain(row.first.cell.family), kind, cells
    )


def _out(board: Board) -> list[tuple[str, str, str, str]]:
    """Rows that are not ranked: name, status, loss, reason."""
    found = [row for group in (board, board.equal_tokens) if group for row in group.unranked]
    losses = [MISSING if row.shown_loss is None else number(BITS * row.shown_loss) for row in found]
    return [
        (plain(row.name), _STATUS[row.status], loss, _whole(row.reason))
        for row, loss in zip(found, losses, strict=True)
    ]


def _apart(board: Board) -> list[tuple[str, str, str]]:
    return [
        (plain(record.cell.row), str(record.cell.seed), plain(why, 200))
        for record, why in board.apart
    ]


def _router(row: Row, anchor: str) -> _Router:
    first = row.first
    options = (
        ", ".join(f"{name}={value!r}" for name, value in sorted(first.row.options.items()))
        or "defaults"
    )
    auxiliary = sorted({name for record in row.good for name in record.auxiliary})
    means = [
        (plain(name), number(fmean(r.auxiliary[name] for r in row.good if name in r.auxiliary), 4))
        for name in auxiliary
    ]
    found = next((record.passage for record in row.good if record.passage), None)
    return _Router(
        anchor=anchor,
        name=plain(row.name),
        about=plain(f"{first.cell.family}; {first.cell.site} site; options: {options}", 400),
        routes=details.routes(row),
        layers=monitors.layer_table(row),
        settling=monitors.settling(row),
        passage=details.passage(row),
        domain=plain(found.domain) if found else "",
        auxiliary=means,
    )


def _audit(row: Row) -> tuple[str, ...]:
    """Name, target, capacity, width, layers, spends, tolerance, headline of the first seed.

    Spends are means.
    """
    budget = row.first.budget
    if budget is None:
        return (plain(row.name), *(MISSING,) * 8)
    return (
        plain(row.name),
        quantity(budget.target_flops),
        percent(budget.capacity),
        MISSING if budget.expert_width is None else str(budget.expert_width),
        ", ".join(map(str, budget.routed_layers)) or MISSING,
        percent(
            row.mean(lambda record: record.budget.calibration_spend if record.budget else None), 2
        ),
        percent(
            row.mean(lambda record: record.budget.validation_spend if record.budget else None), 2
        ),
        f"± {percent(budget.tolerance)}",
        budget.headline,
    )


def _provenance(row: Row) -> dict[str, object]:
    """Where a row's records come from: every distinct value, seeds together."""
    made = [record.provenance for record in row.records]

    def distinct(values: Sequence[str]) -> str:
        return plain(", ".join(dict.fromkeys(values)), 400)

    first: Record = row.records[0]
    return {
        "name": plain(row.name),
        "fields": [
            ("command", distinct([one.command for one in made])),
            (
                "commit",
                distinct(
                    [
                        one.commit[:12] + (" with uncommitted changes" if one.dirty else "")
                        for one in made
                    ]
                ),
            ),
            (
                "started",
                f"{min(one.started for one in made)} to {max(one.started for one in made)}",
            ),
            (
                "machine",
                distinct(
                    [
                        f"{one.device}, {one.processor}, {one.threads} threads, {one.dtype}"
                        for one in made
                    ]
                ),
            ),
            (
                "versions",
                distinct(
                    [
                        ", ".join(
                            f"{name} {version}" for name, version in sorted(one.versions.items())
                        )
                        for one in made
                    ]
                ),
            ),
            ("rules", distinct([str(one.rules_version) for one in made])),
            ("configuration", distinct([one.config_hash[:16] for one in made])),
            ("plugin", distinct([one.router_hash[:16] for one in made])),
            ("data", distinct([one.data_hash[:16] for one in made])),
            ("seeds", seeds([record.cell.seed for record in row.records])),
            ("content keys", distinct([record.key[:16] for record in row.records])),
            ("causality", plain(first.causality.detail, 200) if first.causality else MISSING),
        ],
    }
