"""`leaderboard.md`: a pure function of the boards, so that the same records make the same bytes."""

from collections.abc import Sequence
from statistics import fmean

from bench.board import measures
from bench.board.columns import Cell, Column, audit_columns, cost_columns, verdict_columns
from bench.board.model import Board, Row, comparison
from bench.board.remarks import disagreements, remarks, summary
from bench.board.text import BITS, MISSING, code, escape, listing, number, percent, seeds, table
from bench.board.truth import truth_columns
from bench.stats import Rank


def render_leaderboard(boards: Sequence[Board], *, command: str) -> str:
    """The leaderboard as GitHub Markdown.

    Args:
        boards: what `build_board` returned.
        command: the command that makes this file, for its last line.
    """
    sections = [
        "# Leaderboard",
        "Generated from the records; do not edit. Loss is in bits per byte of validation text, lower is better.",
    ]
    for board in boards:
        sections += _board(board)
    sections += [_FOOTNOTES, _made_by(boards, command)]
    return "\n\n".join(section for section in sections if section) + "\n"


def _board(board: Board) -> list[str]:
    return [
        f"## {escape(board.title)}",
        f"**{escape(summary(board))}**",
        _setting(board),
        _verdicts(board),
        "\n".join(f"- {line}" for line in remarks(board, escape)),
        _section("### Against the right paths", _truth(board)),
        _section("### Cost", _table(board.rows, [], cost_columns(board))),
        _section("### Audit and speed", _table(board.rows, [], audit_columns(board))),
        _equal_tokens(board),
        _section("### Shown, not ranked", _beside(board)),
        *(_section(f"### {title}", _unranked(board, status)) for status, title in _SECTIONS),
        _section("### Made under other conditions", _apart(board)),
    ]


_SECTIONS = (
    ("incomplete", "Incomplete: seeds are missing"),
    ("mixed", "Mixed: seeds of different experiments"),
    ("off_budget", "Off budget"),
    ("invalid", "Invalid"),
    ("failed", "Failed"),
)


def _section(title: str, body: str) -> str:
    return f"{title}\n\n{body}" if body else ""


def _setting(board: Board) -> str:
    """Purpose, budget, corpus, seeds and what was declared before the run."""
    declared = comparison(board.config)
    first = (board.ranked or board.rows or board.unranked)[0].first
    lines = [
        f"- Budget: {percent(board.budget, 0)} of the routed full-path cost, at equal {MATCHES[board.match]}.",
        f"- Headline: mean over {listing([code(domain) for domain in first.headline_domains]) or 'the headline domains'}.",
        f"- Seeds: {seeds(board.seeds)}; machine: {escape(first.provenance.device)}, {escape(first.provenance.processor)}, "
        f"{first.provenance.threads} thread{'s' * (first.provenance.threads != 1)}, {escape(first.provenance.dtype)}.",
        f"- Declared before the run: family-wise level {declared['alpha']:g}, "
        f"equivalence margin {number(BITS * declared['margin'], 4)} bits ({declared['margin']:g} nats) per byte.",
    ]
    purpose = escape(str(board.config.get("purpose", "")).strip(), 600)
    return "\n".join([f"{purpose}\n" if purpose != MISSING else "", *lines]).strip()


MARKS = {"control": " †", "twin": " ‡", "informed": " §", "bracket": " ¶"}
MATCHES = {"flops": "training FLOPs", "tokens": "training tokens"}


def _verdicts(board: Board) -> str:
    """Tier, loss and the two declared comparisons of each ranked row."""
    tiers = [
        Column("tier", "", lambda row: Cell(str(board.judgement.ranks[row.name].tier))),
        Column("rank", "", lambda row: Cell(rank_text(board.judgement.ranks[row.name]))),
    ]
    return _table(board.ranked, tiers, verdict_columns(board))


def _truth(board: Board) -> str:
    """Routing against the truth, where the records have it.

    A token of such data counts as a byte.
    """
    columns = truth_columns(board)
    return _table(board.rows, [], columns) if columns else ""


def _table(rows: Sequence[Row], before: Sequence[Column], after: Sequence[Column]) -> str:
    """Rows by columns, the row's name between `before` and `after`."""
    if not rows:
        return ""
    columns = (
        *before,
        Column(
            "router", "", lambda row: Cell(code(row.name) + MARKS.get(row.role, "")), numeric=False
        ),
        *after,
    )
    header = [escape(column.title) if column.foreign else column.title for column in columns]
    cells = [[_cell(column.cell(row)) for column in columns] for row in rows]
    return table(header, cells, "".join("r" if column.numeric else "l" for column in columns))


def _cell(cell: Cell) -> str:
    if cell.link:
        return f"[{cell.text}]({cell.link})"
    return escape(cell.text) if cell.foreign else cell.text


def rank_text(rank: Rank) -> str:
    """The ranks that a row may hold."""
    return str(rank.low) if rank.low == rank.high else f"{rank.low}–{rank.high}"


def _equal_tokens(board: Board) -> str:
    if board.equal_tokens is None:
        return ""
    body = _verdicts(board.equal_tokens)
    return "\n\n".join(
        part for part in ("### At equal tokens", disagreements(board, code), body) if part
    )


def _beside(board: Board) -> str:
    """Brackets and routers with side information."""
    rows = [
        *((row, "bracket, equal tokens") for row in board.brackets),
        *((row, "side information") for row in board.informed),
    ]
    lines = [
        [
            code(row.name),
            what,
            number(BITS * fmean(row.losses.values())),
            percent(row.mean(measures.active_share)),
            seeds(list(row.losses)),
        ]
        for row, what in rows
    ]
    return (
        table(["router", "why", "bits per byte", "of dense", "seeds"], lines, "llrrl")
        if lines
        else ""
    )


def _unranked(board: Board, status: str) -> str:
    """Rows that would be ranked but for `status`, each with its reason."""
    lines: list[str] = []
    for group in (board, board.equal_tokens):
        for row in group.unranked if group else ():
            if row.status == status:
                loss, spend = row.shown_loss, row.mean(measures.validation_spend)
                known = [] if loss is None else [f"{number(BITS * loss)} bits per byte"]
                known += [] if spend is None else [f"spend {percent(spend, 2)}"]
                known += ["at equal tokens"] * (group is not board)
                aside = f" ({', '.join(known)})" if known else ""
                lines.append(f"- {code(row.name)}{aside}: {escape(row.reason)}.")
    return "\n".join(lines)


def _apart(board: Board) -> str:
    """Records that may not stand beside the others, by row and cause."""
    groups: dict[tuple[str, str], list[int]] = {}
    for record, why in board.apart:
        groups.setdefault((record.cell.row, why), []).append(record.cell.seed)
    return "\n".join(
        f"- {code(row)}, seeds {seeds(found)}: {escape(why)}."
        for (row, why), found in groups.items()
    )


_FOOTNOTES = """## How to read this

- **Tier**: rows of one tier are not told apart from its first row by the simultaneous comparison of all pairs. † is a control, ‡ the
  second copy of a router (its own initialisation and noise), which must come out not better. § has side information and ¶ is a
  bracket at equal tokens: neither is ranked.
- **Intervals**: of a mean, a 95 % t interval over seeds; of a difference, paired by seed and simultaneous over the declared family.
- **p**: corrected over the declared family. *Better* and *worse* name the side that won; *equivalent* means inside the margin;
  *inconclusive* neither; *untestable* that this design could not have found a plausible difference.
- **Wins**: seeds in which the row has the lower loss.
- **FLOPs** are per token of a forward pass unless they are of training. Executed FLOPs include padding and full-square attention.
  Speed is training tokens a second against the dense bracket of the same board.
- **Spend**: share of the budget spent on the validation split at the calibrated setting; an interpolated headline is read
  off at exactly 100 %.
- **Causality**: trials of changing the future of the trained router without changing its past."""


def _made_by(boards: Sequence[Board], command: str) -> str:
    made = [
        record.provenance
        for board in boards
        for row in (*board.rows, *board.unranked)
        for record in row.records
    ]
    commits = sorted({(p.commit, p.dirty) for p in made})
    named = listing(
        [
            f"{code(commit[:12])}{' with uncommitted changes' if dirty else ''}"
            for commit, dirty in commits
        ]
    )
    runs = sorted({p.command for p in made})
    ran = listing([code(run, 200) for run in runs], 3)
    return f"Made by {code(command)} from {len(made)} records of {named or 'no commit'}, run by {ran or 'no command'}."
