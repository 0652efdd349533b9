"""Write the sentences that stand beside the numbers.

Their subjects are the resolution, the A/A control, disagreement and exceptions.
"""

import math
from collections.abc import Callable
from statistics import fmean, median

from bench.board import measures
from bench.board.aa_control import aa_control, router_seeds
from bench.board.model import Board, Row, comparison
from bench.board.text import BITS, listing, number, plain, probability, quantity
from bench.board.verdicts import Judgement, word


def summary(board: Board) -> str:
    """Sum up the board in one sentence, with its seeds, size and data."""
    routers = [row for row in board.ranked if row.role == "ranked"]
    if not routers:
        return "No router can be ranked yet."
    matched = board.matched_control

    def beaten(control: Callable[[Row], str | None]) -> list[str]:
        found = [board.outcome(row, control(row)) for row in routers]
        return [outcome.row for outcome in found if outcome and word(outcome) == "better"]

    def made(control: Callable[[Row], str | None]) -> bool:
        return any(board.outcome(row, control(row)) for row in routers)

    many, found = f"{len(routers)} router{'s' * (len(routers) > 1)}", list[str]()
    # "0 of 3" is a finding only if the comparison was made.
    if made(lambda row: row.control):
        count = len(beaten(lambda row: row.control))
        found.append(f"{count} of {many} beat random choice on the same paths")
    if made(lambda row: matched):
        count = len(beaten(lambda row: matched))
        of = "" if found else f" of {many}"
        found.append(f"{count}{of} beat {matched}, the unrouted model of the same cost")
    said = ", and ".join(found) or f"{many} and no control to compare with"
    best = [row.name for row in board.ranked if board.judgement.ranks[row.name].tier == 1]
    # The whole list is no finding when every row is in it.
    shared = len(best) == len(board.ranked)
    tiers = "all rows share one tier" if shared else f"the first tier holds {listing(best)}"
    return f"{_reach(board)}, {said}; {tiers}."


def _reach(board: Board) -> str:
    """Write how far the findings of a board reach: seeds, size and data."""
    rows = board.ranked
    sizes = [row.mean(measures.from_training("parameters_active")) for row in rows]
    tokens = [row.mean(measures.from_training("tokens")) for row in rows]
    # The largest of each: rows at equal FLOPs differ in tokens and in size.
    active, seen = (max((one for one in some if one), default=None) for some in (sizes, tokens))
    data = board.config.get("data") or {}
    kind = "a generated task" if data.get("planted") else "text"
    if data.get("path") or data.get("name"):
        kind = f"text of {plain(str(data.get('path') or data['name']), 60)}"
    many = f"{len(board.seeds)} seed{'s' * (len(board.seeds) != 1)}"
    if active is None or seen is None:
        return f"Over {many} on {kind}"
    size = f"models of {quantity(active)} active parameters"
    return f"Over {many} of {size}, trained on {quantity(seen)} tokens of {kind}"


def remarks(board: Board, shown: Callable[[str], str]) -> list[str]:
    """Return the sentences for below the table of verdicts.

    Args:
        board: the board.
        shown: escapes foreign text.
    """
    judgement = board.judgement
    lines = _detectable(judgement)
    apart = [
        record.flops.pretraining
        for row in board.rows
        for record in row.records
        if record.flops and record.flops.pretraining
    ]
    if apart:
        lines.append(pretraining_apart(fmean(apart)))
    lines += aa_control(judgement.noise, shown)
    if declared := str(comparison(board.config).get("remark") or ""):
        lines.append(shown(declared))
    lines += router_seeds(board, shown)
    lines += _over_seeds(judgement)
    lines += [shown(note) for note in judgement.notes]
    lines += [f"{shown(row.name)}: {shown(row.reason)}." for row in board.ranked if row.reason]
    # Pairs with the same note share one sentence.
    noted: dict[str, list[str]] = {}
    ranked = {row.name for row in board.ranked}
    for (name, control), outcome in judgement.outcomes.items():
        if outcome.notes and name in ranked:
            noted.setdefault(outcome.notes, []).append(f"{shown(name)} against {shown(control)}")
    return lines + [f"{listing(pairs)}: {shown(note)}" for note, pairs in noted.items()]


def _detectable(judgement: Judgement) -> list[str]:
    """Return the smallest difference that the seeds could have found, if it is known.

    A margin is of use only if it is no smaller.
    """
    found = [
        outcome.detectable
        for outcome in judgement.outcomes.values()
        if math.isfinite(outcome.detectable)
    ]
    if not found:
        return []
    smallest = number(BITS * median(found))
    return [
        f"The smallest difference found with 80 % power is {smallest} bits per byte "
        "(median over the declared comparisons)."
    ]


def _over_seeds(judgement: Judgement) -> list[str]:
    """Return sentences on the losses of all rows over seeds."""
    lines: list[str] = []
    if math.isfinite(judgement.correlation):
        lines.append(
            "Losses of two rows correlate over seeds with "
            f"{number(judgement.correlation, 2)} on average; comparisons are paired."
        )
    if judgement.friedman:
        lines.append(
            f"Friedman test that all rows are alike, over {judgement.friedman.n} seeds: "
            f"p {probability(judgement.friedman.p)}."
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
