"""Write the sentences of a board about its numbers.

Their subjects are the findings, the A/A control, disagreement and exceptions.
"""

import math
from collections.abc import Callable, Sequence
from statistics import fmean

from bench.board.model import Board, Row
from bench.board.text import listing, number, probability, quantity
from bench.board.verdicts import Judgement, word
from bench.pages.aa_control import aa_control, router_seeds
from bench.pages.limits import left_out


def summary(board: Board, shown: Callable[[str], str] = str) -> str:
    """Sum up the board in short sentences, one finding each.

    Args:
        board: the board.
        shown: escapes foreign text.
    """
    routers = [row for row in board.ranked if row.role == "ranked"]
    if not routers:
        return "No router can be ranked yet."
    matched, many = board.matched_control, len(board.seeds)
    found = [
        *_count(board, routers, lambda row: row.control, "random choice on the same paths", shown),
        *_count(
            board,
            routers,
            lambda row: matched,
            f"{shown(matched)}, the unrouted model of the same cost",
            shown,
        ),
    ]
    none = f"{len(routers)} router{'s' * (len(routers) > 1)}, and no control to compare with."
    return " ".join([f"{many} seed{'s' * (many != 1)}.", *(found or [none]), *_best(board, shown)])


def _count(
    board: Board,
    routers: Sequence[Row],
    control: Callable[[Row], str | None],
    name: str,
    shown: Callable[[str], str],
) -> list[str]:
    """Count the routers that beat a control, of those that could be compared with it."""
    made = [one for row in routers if (one := board.outcome(row, control(row)))]
    # A comparison that was not made is no defeat.
    tested = [one for one in made if one.verdict != "untestable"]
    untested = [shown(one.row) for one in made if one.verdict == "untestable"]
    if not tested:
        return [f"No router could be tested against {name}."] if made else []
    wins = sum(word(one) == "better" for one in tested)
    of = f"{len(tested)}{' tested' * bool(untested)} router{'s' * (len(tested) > 1)}"
    said = f"{wins} of {of} {'beats' if wins == 1 else 'beat'} {name}"
    return [f"{said}; {listing(untested)} could not be tested." if untested else f"{said}."]


def _best(board: Board, shown: Callable[[str], str]) -> list[str]:
    """Name the row of lowest loss, and the rows of the first tier beside it."""
    first, *others = (row.name for row in board.ranked if board.judgement.ranks[row.name].tier == 1)
    # The whole list is no finding when every row is in it.
    if len(others) + 1 == len(board.ranked):
        return ["No row is significantly worse than the first."] if others else []
    if not others:
        return [f"Lowest loss: {shown(first)}. The next row is significantly worse."]
    names = listing([shown(name) for name in others])
    return [f"Lowest loss: {shown(first)}. Not significantly worse: {names}."]


def remarks(board: Board, shown: Callable[[str], str]) -> list[str]:
    """Return the sentences for below the table of verdicts.

    Args:
        board: the board.
        shown: escapes foreign text.
    """
    judgement = board.judgement
    lines = [shown(note) for note in judgement.notes]
    apart = [
        record.flops.pretraining
        for row in board.rows
        for record in row.records
        if record.flops and record.flops.pretraining
    ]
    if apart:
        lines.append(pretraining_apart(fmean(apart)))
    lines += aa_control(judgement.noise, shown)
    lines += router_seeds(board, shown)
    lines += _over_seeds(judgement)
    lines += left_out(board, shown)
    lines += [f"{shown(row.name)}: {shown(row.reason)}." for row in board.ranked if row.reason]
    # Pairs with the same note share one sentence.
    noted: dict[str, list[str]] = {}
    ranked = {row.name for row in board.ranked}
    for (name, control), outcome in judgement.outcomes.items():
        # A row without any loss is explained above.
        if outcome.notes and name in ranked and control not in judgement.absent:
            noted.setdefault(outcome.notes, []).append(f"{shown(name)} against {shown(control)}")
    return lines + [f"{listing(pairs)}: {shown(note)}" for note, pairs in noted.items()]


def _over_seeds(judgement: Judgement) -> list[str]:
    """Return sentences on the losses of all rows over seeds."""
    lines: list[str] = []
    if math.isfinite(judgement.correlation):
        lines.append(
            "Comparisons are paired by seed. The losses of two rows correlate over seeds with "
            f"{number(judgement.correlation, 2)} on average."
        )
    if judgement.friedman:
        lines.append(
            f"Friedman's rank test of no difference among all rows, over "
            f"{judgement.friedman.n} seeds, has p {probability(judgement.friedman.p)}. No verdict "
            "depends on it."
        )
    return lines


def waivers(board: Board, shown: Callable[[str], str]) -> list[str]:
    """Return a line for each row that fails waived checks: their names and findings.

    Args:
        board: the board.
        shown: escapes foreign text.
    """
    boards = (board, *([board.equal_tokens] if board.equal_tokens else []))
    rows = {row.name: row for one in boards for row in (*one.unranked, *one.rows) if row.waived}
    lines: list[str] = []
    for name, row in sorted(rows.items()):
        checks = [
            shown(check) + (f" ({shown(why)})" if why else "") for check, why in row.waived.items()
        ]
        lines.append(f"{shown(name)} fails checks that were waived: {'; '.join(checks)}")
    return lines


def pretraining_apart(flops: float) -> str:
    """Write the remark on the backbone that all rows of a seed share."""
    took = f"The frozen backbone of a seed took {quantity(flops)} FLOPs of pretraining"
    return f"{took}, which no row is charged."


def disagreements(board: Board, shown: Callable[[str], str]) -> str:
    """Name in one sentence the rows whose tiers at equal FLOPs and at equal tokens differ."""
    other = board.equal_tokens
    if other is None:
        return ""
    flops, tokens = board.judgement.ranks, other.judgement.ranks
    common = [row.name for row in board.ranked if row.name in tokens]
    moved = [
        f"{shown(name)} (tier {flops[name].tier} against {tokens[name].tier})"
        for name in common
        if flops[name].tier != tokens[name].tier
    ]
    if not common:
        return "No row is ranked both at equal FLOPs and at equal tokens."
    if not moved:
        return f"The two rankings put all {len(common)} rows that both hold in the same tiers."
    return f"The two rankings disagree on {listing(moved, 12)}."
