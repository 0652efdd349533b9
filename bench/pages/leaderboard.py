"""Collect the values that the templates of `leaderboard.md` and `report.html` show.

Each page is a pure function of the boards, so that the same records make the same bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from bench.board import measures
from bench.board.columns import (
    Column,
    TableCell,
    first_columns,
    part_of,
    verdict_columns,
)
from bench.board.conditions import processors
from bench.board.model import Board, Row, comparison
from bench.board.text import BITS, MISSING, code, escape, number, percent, prose
from bench.board.text import seeds as seed_runs
from bench.figures.board_figures import board_figures
from bench.pages.cost_columns import audit_columns, cost_columns
from bench.pages.legends import WAIVED
from bench.pages.limits import limits
from bench.pages.remarks import disagreements, remarks, summary, waivers
from bench.pages.routes import route_columns
from bench.pages.templating import explained, markdown
from bench.pages.truth import truth_columns
from bench.record import Provenance, Record
from bench.stats import Rank

MATCHES = {"flops": "training FLOPs", "tokens": "training tokens"}

_PACKAGE, _FOLDER = "bench.pages", "templates"


def render_leaderboard(boards: Sequence[Board], *, command: str, folder: str | None = None) -> str:
    """Render the leaderboard as GitHub Markdown.

    Args:
        boards: the boards that `build_board` returned.
        command: the command that makes this file, run in its folder.
        folder: path from the page to the tree of records, to show its figures; without it the page
            has no pictures.
    """
    context = {
        "boards": [_board(board, folder) for board in boards],
        "command": command,
        "made": _made(boards),
    }
    return markdown(_PACKAGE, _FOLDER, "leaderboard.md.j2", context)


def _board(board: Board, folder: str | None) -> dict[str, Any]:
    """Return the values that the leaderboard shows of one board."""
    # A board may hold failures only; it still has a machine and a suite to name.
    first = (board.ranked or board.rows or board.unranked)[0].first
    tokens = board.equal_tokens
    slugs = {figure.slug: figure for figure in board_figures(board)} if folder is not None else {}
    # Figures of a suite at several budgets lie in a folder each.
    at = f"/b{100 * board.budget:g}" if board.other_budgets else ""
    return {
        "board": board,
        "title": escape(board.title),
        "summary": summary(board, code),
        "limits": limits(board, escape, code),
        "purpose": prose(str(board.config.get("purpose", "")).strip(), 600),
        "pictures": [
            (slugs[slug].title, f"{folder}/{board.suite}/figures{at}/{slug}.svg")
            for slug in ("forest", "loss-flops")
            if slug in slugs
        ],
        "facts": facts(board),
        "cell": first.cell,
        "headline": headline(first),
        "machine": first.provenance,
        "processors": processors([r for row in board.rows or board.unranked for r in row.records]),
        "remarks": remarks(board, escape),
        "waivers": waivers(board, escape),
        "first": explained(board, board.ranked, first_columns(board)),
        "comparisons": explained(
            board, board.ranked, [*place_columns(board), *verdict_columns(board)]
        ),
        "truth": explained(board, board.rows, truth_columns(board)),
        "routes": explained(board, board.rows, route_columns(board)),
        "cost": explained(board, board.rows, cost_columns(board)),
        "audit": explained(board, board.rows, audit_columns(board)),
        "disagreements": disagreements(board, code),
        "tokens": explained(
            tokens, tokens.ranked, [*place_columns(tokens), *verdict_columns(tokens)]
        )
        if tokens
        else "",
        "beside": beside(board),
        "out": out(board),
        "apart": apart(board),
    }


def _made(boards: Sequence[Board]) -> dict[str, Any]:
    """Return the provenance of the records of all boards."""
    rows = [row for board in boards for row in (*board.rows, *board.unranked)]
    return provenance_of([record.provenance for row in rows for record in row.records])


def provenance_of(made: Sequence[Provenance]) -> dict[str, Any]:
    """Count the records and list their commits and commands."""
    commits = sorted({(one.commit, one.dirty) for one in made})
    return {
        "records": len(made),
        "commits": [
            code(commit[:12]) + " with uncommitted changes" * dirty for commit, dirty in commits
        ],
        "commands": [code(command, 200) for command in sorted({one.command for one in made})],
    }


def headline(record: Record) -> tuple[list[str], list[str]]:
    """Return the domains of the headline loss, and those that were measured and left out."""
    chosen = list(record.headline_domains)
    return chosen, [name for name in record.domain_loss if name not in chosen] if chosen else []


def facts(board: Board) -> dict[str, Any]:
    """Return the declaration of the suite, as words."""
    declared = comparison(board.config)
    return {
        "budget": percent(board.budget, 0),
        "match": MATCHES[board.match],
        "level": f"{100 * declared['alpha']:g} %",
        "margin": number(BITS * declared["margin"], 4),
        "margin_nats": f"{declared['margin']:g}",
    }


def rank_text(rank: Rank) -> str:
    """Write the ranks that a row may hold."""
    return str(rank.low) if rank.low == rank.high else f"{rank.low}–{rank.high}"


def place_columns(board: Board) -> list[Column]:
    """Return the columns of tier and rank; a dash for rows that are not ranked."""
    ranks, ranked = board.judgement.ranks, {row.name for row in board.ranked}

    def rank(row: Row) -> TableCell:
        # The second field sorts the table.
        return TableCell(rank_text(ranks[row.name]), ranks[row.name].low)

    def tier(row: Row) -> TableCell:
        return TableCell(str(ranks[row.name].tier), ranks[row.name].tier)

    def known(read: Any) -> Any:
        return lambda row: read(row) if row.name in ranked else TableCell(MISSING)

    return [
        Column(
            "tier",
            "a tier holds its first row and the rows that are not significantly worse than it",
            known(tier),
        ),
        Column(
            "rank",
            "the ranks that the comparisons of all pairs leave open, also across tiers",
            known(rank),
        ),
    ]


def beside(board: Board) -> list[list[str]]:
    """Return brackets and informed rows: name, why, loss, share of dense, seeds."""
    rows = [
        *((row, "bracket, equal tokens") for row in board.brackets),
        *((row, part_of(row)) for row in board.informed),
    ]
    return [
        [
            code(row.name) + f" {WAIVED}" * bool(row.waived),
            why,
            number(BITS * fmean(row.losses.values())),
            percent(row.mean(measures.active_share)),
            seed_runs(list(row.losses)),
        ]
        for row, why in rows
    ]


@dataclass(frozen=True)
class Out:
    """A row that is not ranked: its status, its figures as words, and the reason."""

    name: str
    mark: str
    status: str
    loss: str
    known: tuple[str, ...]
    reason: str


def out(board: Board) -> list[Out]:
    """Return the rows that would be ranked but for their status."""
    made: list[Out] = []
    for group in (board, board.equal_tokens):
        for row in group.unranked if group else ():
            loss, spend = row.shown_loss, row.mean(measures.validation_spend)
            known = [] if loss is None else [f"{number(BITS * loss)} bits per byte"]
            known += [] if spend is None else [f"spend {percent(spend, 2)}"]
            known += ["at equal tokens"] * (group is not board)
            shown = MISSING if loss is None else number(BITS * loss)
            mark = f" {WAIVED}" * bool(row.waived)
            made.append(Out(row.name, mark, row.status, shown, tuple(known), row.reason))
    return made


def apart(board: Board) -> list[tuple[str, list[int], str]]:
    """Group the records that do not compare with the others, by row and cause."""
    groups: dict[tuple[str, str], list[int]] = {}
    for record, why in board.apart:
        groups.setdefault((record.cell.row, why), []).append(record.cell.seed)
    return [(row, found, why) for (row, why), found in groups.items()]
