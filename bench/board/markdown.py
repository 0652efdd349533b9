"""`leaderboard.md`: a pure function of the boards, so that the same records make the same bytes."""

from collections.abc import Callable, Sequence
from statistics import fmean

from bench.board import measures
from bench.board.model import Board, Row, comparison
from bench.board.text import BITS, MISSING, code, escape, interval, listing, number, paper, percent, probability, quantity, seeds, table
from bench.board.verdicts import Contrast


def render_leaderboard(boards: Sequence[Board], *, command: str) -> str:
    """The leaderboard as GitHub Markdown.

    Args:
        boards: what `build_board` returned.
        command: the command that makes this file, for its last line.
    """
    sections = ["# Leaderboard", "Generated from the records; do not edit. Loss is in bits per byte of validation text, lower is better."]
    for board in boards:
        sections += _board(board)
    sections += [_FOOTNOTES, _made_by(boards, command)]
    return "\n\n".join(section for section in sections if section) + "\n"


def summary(board: Board) -> str:
    """What the board shows, in one plain sentence without markup."""
    routers = [row for row in board.ranked if row.role == "ranked"]
    if not routers:
        return "No router can be ranked yet."
    matched = board.matched_control
    beaten = [row for row in routers if (c := board.contrast(row, row.first.cell.control)) and c.word == "better"]
    beat_dense = [row for row in routers if (c := board.contrast(row, matched)) and c.word == "better"]
    judged = [row for row in routers if board.contrast(row, matched)]
    many = f"{len(routers)} routers" if len(routers) > 1 else "one router"
    said = f"Of {many}, {len(beaten) or 'none'} beat{'s' if len(beaten) < 2 else ''} random choice on the same paths"
    if judged:
        plural = "s" if len(beat_dense) < 2 else ""
        said += f", and {len(beat_dense) or 'none'} beat{plural} {matched}, the unrouted model of the same cost"
    best = [row.name for row in board.ranked if board.judgement.standings[row.name].tier == 1]
    return f"{said}, over {len(board.seeds)} seed{'s' * (len(board.seeds) != 1)}; the first tier holds {listing(best)}."


def _board(board: Board) -> list[str]:
    return [
        f"## {escape(board.title)}",
        f"**{escape(summary(board))}**",
        _setting(board),
        _verdicts(board),
        _noise_floor(board),
        _section("### Cost", _costs(board)),
        _section("### Audit and speed", _audit(board)),
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
        f"- Budget: {percent(board.budget, 0)} of the routed full-path cost, at equal {_MATCH[board.match]}.",
        f"- Headline: mean over {listing([code(domain) for domain in first.headline_domains]) or 'the headline domains'}.",
        f"- Seeds: {seeds(board.seeds)}; machine: {escape(first.provenance.device)}, {escape(first.provenance.processor)}, "
        f"{first.provenance.threads} thread{'s' * (first.provenance.threads != 1)}, {escape(first.provenance.dtype)}.",
        f"- Declared before the run: family-wise level {declared['alpha']:g}, "
        f"equivalence margin {number(BITS * declared['margin'], 4)} bits ({declared['margin']:g} nats) per byte.",
    ]
    purpose = escape(str(board.config.get("purpose", "")).strip(), 600)
    return "\n".join([f"{purpose}\n" if purpose != MISSING else "", *lines]).strip()


_MATCH = {"flops": "training FLOPs", "tokens": "training tokens"}


def _verdicts(board: Board) -> str:
    """Tier, loss and the two declared comparisons of each ranked row."""
    if not board.ranked:
        return ""
    matched = board.matched_control
    header = ["tier", "router", "bits per byte", "to random", "verdict (p)", "wins", f"to {escape(matched)}", "verdict (p)", "wins"]
    lines = []
    for row in board.ranked:
        standing = board.judgement.standings[row.name]
        mean = f"{number(BITS * standing.mean)} {interval(BITS * standing.low, BITS * standing.high)}".strip()
        name = code(row.name) + _MARK.get(row.role, "")
        cells = [cell for control in (row.first.cell.control, matched) for cell in _contrast(board, row, control)]
        lines.append([str(standing.tier), name, mean, *cells])
    return table(header, lines, "rlrrlrrlr")


_MARK = {"control": " †", "twin": " ‡"}


def _contrast(board: Board, row: Row, control: str | None) -> list[str]:
    found = board.contrast(row, control)
    if found is None:
        return [MISSING, MISSING, MISSING]
    opponent = next(other for other in board.ranked if other.name == found.control)
    won, of = measures.wins(row, opponent)
    return [_difference(found), verdict(found), f"{won}/{of}"]


def _difference(found: Contrast) -> str:
    shown = f"{number(BITS * found.difference, signed=True)} {interval(BITS * found.low, BITS * found.high, signed=True)}"
    return shown.strip()


def verdict(found: Contrast) -> str:
    """The verdict from the row's side with its corrected p."""
    p = probability(found.p)
    return found.word if p == MISSING else f"{found.word} ({p})"


def _noise_floor(board: Board) -> str:
    """The smallest differences that this design finds, and what the statistics noted."""
    found = [contrast.detectable for contrast in board.judgement.contrasts.values() if contrast.detectable == contrast.detectable]
    lines: list[str] = []
    if found:
        lines.append(f"The smallest difference found with 80 % power is {number(BITS * fmean(found))} bits per byte (mean over the comparisons).")
    lines += [escape(note) for note in board.judgement.notes]
    for row in board.ranked:
        lines += [f"{code(row.name)}: {escape(row.reason)}."] * bool(row.reason)
    for (name, control), contrast in board.judgement.contrasts.items():
        lines += [f"{code(name)} against {code(control)}: {escape(contrast.notes)}"] * bool(contrast.notes)
    return "\n".join(f"- {line}" for line in lines)


def _costs(board: Board) -> str:
    header = ["router", "inference FLOPs", "of dense", "executed", "training FLOPs", "tokens", "parameters", "active", "speed", "memory"]
    dense = board.dense

    def line(row: Row) -> list[str]:
        memory = row.mean(measures.from_training("peak_memory_mb"))
        speed = measures.relative_throughput(row, dense)
        return [
            code(row.name),
            quantity(row.mean(measures.active)),
            percent(row.mean(measures.active_share)),
            percent(row.mean(measures.executed_share)),
            quantity(row.mean(measures.training_flops)),
            quantity(row.mean(measures.from_training("tokens"))),
            quantity(row.mean(measures.from_training("parameters_total"))),
            quantity(row.mean(measures.from_training("parameters_active"))),
            MISSING if speed is None else f"{number(speed, 2)}×",
            MISSING if memory is None else f"{memory:,.0f} MB",
        ]

    return table(header, [line(row) for row in board.rows], "lrrrrrrrrr") if board.rows else ""


def _audit(board: Board) -> str:
    limits = measures.thresholds(board)
    speeds = [f"FLOPs to {number(BITS * limit, 2)}" for limit in limits]
    header = ["router", "family", "paper", "spend, calibrated", "headline", "causality", *speeds]

    def line(row: Row) -> list[str]:
        spend = row.mean(measures.validation_spend)
        how = row.first.budget.headline if row.first.budget else MISSING
        identity = [code(row.name), escape(row.first.cell.family), paper(row.first.cell.paper)]
        return [*identity, percent(spend, 2), how, causality(row), *(_reached(row, limit) for limit in limits)]

    return table(header, [line(row) for row in board.rows], "lllrll" + "r" * len(limits)) if board.rows else ""


def causality(row: Row) -> str:
    """`pass` with the number of trials over all seeds, `fail`, or a dash where nothing was tried."""
    tried = [record.causality for record in row.records if record.causality]
    if not tried:
        return MISSING
    return f"pass ({sum(one.trials for one in tried)})" if all(one.passed for one in tried) else "fail"


def _reached(row: Row, limit: float) -> str:
    cost, hits = measures.mean_cost_to_reach(row, limit)
    if cost is None:
        return "not reached" if any(record.curve for record in row.good) else MISSING
    return quantity(cost) + (f" ({hits}/{len(row.good)})" if hits < len(row.good) else "")


def disagreements(board: Board, shown: Callable[[str], str]) -> str:
    """Where equal FLOPs and equal tokens rank the same rows differently: whose tiers differ, in one sentence."""
    other = board.equal_tokens
    if other is None:
        return ""
    flops, tokens = board.judgement.standings, other.judgement.standings
    common = [row.name for row in board.ranked if row.name in tokens]
    moved = [
        f"{shown(name)} (tier {flops[name].tier} against {tokens[name].tier})" for name in common if flops[name].tier != tokens[name].tier
    ]
    if not common:
        return "No row is ranked both at equal FLOPs and at equal tokens."
    if not moved:
        return f"The two rankings put all {len(common)} rows that both hold in the same tiers."
    return f"The two rankings disagree on {listing(moved, 12)}."


def _equal_tokens(board: Board) -> str:
    if board.equal_tokens is None:
        return ""
    body = _verdicts(board.equal_tokens)
    return "\n\n".join(part for part in ("### At equal tokens", disagreements(board, code), body) if part)


def _beside(board: Board) -> str:
    """Brackets and routers with side information."""
    rows = [*((row, "bracket, equal tokens") for row in board.brackets), *((row, "side information") for row in board.informed)]
    lines = [
        [code(row.name), what, number(BITS * fmean(row.losses.values())), percent(row.mean(measures.active_share)), seeds(list(row.losses))]
        for row, what in rows
    ]
    return table(["router", "why", "bits per byte", "of dense", "seeds"], lines, "llrrl") if lines else ""


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
    return "\n".join(f"- {code(row)}, seeds {seeds(found)}: {escape(why)}." for (row, why), found in groups.items())


_FOOTNOTES = """## How to read this

- **Tier**: rows of one tier are not told apart by the simultaneous comparison of all pairs. † is a control, ‡ the second copy of a router
  (its own initialisation and noise), which must come out not better.
- **Intervals**: of a mean, a 95 % t interval over seeds; of a difference, paired by seed and simultaneous over the declared family.
- **p**: corrected over the declared family. *Better* and *worse* name the side that won; *equivalent* means inside the margin;
  *inconclusive* neither; *untestable* that this design could not have found a plausible difference.
- **Wins**: seeds in which the row has the lower loss.
- **FLOPs** are per token of a forward pass unless they are of training. Executed FLOPs include padding and full-square attention.
  Speed is training tokens a second against the dense bracket of the same board.
- **Spend, calibrated**: share of the budget spent on the validation split at the calibrated setting; an interpolated headline is read
  off at exactly 100 %.
- **Causality**: trials of changing the future of the trained router without changing its past."""


def _made_by(boards: Sequence[Board], command: str) -> str:
    made = [record.provenance for board in boards for row in (*board.rows, *board.unranked) for record in row.records]
    commits = sorted({(p.commit, p.dirty) for p in made})
    named = listing([f"{code(commit[:12])}{' with uncommitted changes' if dirty else ''}" for commit, dirty in commits])
    runs = sorted({p.command for p in made})
    ran = listing([code(run, 200) for run in runs], 3)
    return f"Made by {code(command)} from {len(made)} records of {named or 'no commit'}, run by {ran or 'no command'}."
