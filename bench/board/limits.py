"""Say how far the verdicts of a board reach: size, cost, resolution, looks, commits and time."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import median

from bench.board import measures
from bench.board.model import Board, Row, comparison, counts
from bench.board.text import BITS, listing, number, percent, plain, quantity, seeds
from bench.board.verdicts import word
from bench.record import Record
from bench.stats.sequential import chance_over_schedules

_OUT = {
    "off_budget": "missed the budget",
    "failed": "failed",
    "diverged": "diverged",
    "invalid": "broke a rule",
}
"""What happened in the seeds of a row that is not ranked."""


def limits(
    board: Board, shown: Callable[[str], str] = str, name: Callable[[str], str] = str
) -> list[str]:
    """Return the lines that stand under the summary of a board.

    Args:
        board: the board.
        shown: escapes foreign text.
        name: writes the name of a row.
    """
    if not board.ranked:
        return []
    lines = [*_size(board), *_cost(board), *_resolution(board), *_looks(board)]
    lines += [*_history(board, shown), *_commits(board.ranked, name)]
    return [*lines, *_time(board, name)]


def _range(values: Sequence[float | None], show: Callable[[float], str]) -> str:
    """Write the smallest and the largest value, or one if both read alike; empty without any."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return ""
    # Values that differ below the shown digits are one value for the reader.
    low, high = show(min(known)), show(max(known))
    return low if low == high else f"{low} to {high}"


def _size(board: Board) -> list[str]:
    read = ("parameters_active", "tokens")
    active, seen = (
        _range([row.mean(measures.from_training(name)) for row in board.ranked], quantity)
        for name in read
    )
    data = board.config.get("data") or {}
    kind = "a generated task" if data.get("planted") else "text"
    if data.get("path") or data.get("name"):
        kind = f"text of {plain(str(data.get('path') or data['name']), 60)}"
    if not active or not seen:
        return [f"Size: not measured; the data are {kind}."]
    return [f"Size: {active} active parameters per model, {seen} training tokens of {kind}."]


def _cost(board: Board) -> list[str]:
    share = percent(board.budget, 0)
    said = f"Cost: the routed layers may spend {share} of the cost of their full paths."
    whole = _range([row.mean(measures.active_share) for row in board.ranked], percent)
    if whole:
        said += f" The whole model then costs {whole} of the dense model's FLOPs per token."
    same = "spend the same training FLOPs" if board.match == "flops" else "see the same tokens"
    return [f"{said} All ranked rows {same}."]


def _resolution(board: Board) -> list[str]:
    """Compare the smallest detectable difference with the margin.

    Two one-sided tests at a true difference of 0 need about the same number of seeds as a test of
    a difference as large as the margin.
    """
    found = [
        outcome.detectable
        for outcome in board.judgement.outcomes.values()
        if math.isfinite(outcome.detectable)
    ]
    if not found:
        return []
    # One noisy row must not set the figure for all others.
    smallest, margin = median(found), float(comparison(board.config)["margin"])
    reach = "can be shown here" if smallest <= margin else "can hardly be shown here"
    return [
        f"Resolution: a true difference of {number(BITS * smallest)} bits per byte is detected in "
        f"80 % of cases (median over the comparisons). The margin is {number(BITS * margin, 4)}: "
        f"smaller differences do not matter. So the verdict “equivalent” {reach}."
    ]


def _looks(board: Board) -> list[str]:
    """Write the level of the board, its looks, and the level over several declarations."""
    plan, look = board.judgement.plan, board.judgement.look
    # Before the first look there is no verdict, and so no level.
    if plan is None or look < 0:
        return []
    level = f"{100 * plan.alpha:g} %"
    said = f"Level: the chance of one or more false differences on this board is at most {level}."
    if look:
        at = listing([f"at {one}" for one in plan.looks[: look + 1]])
        said += f" Results were judged {at} seeds, and the {level} covers all looks."
    lines = [said]
    if ahead := plan.looks[look + 1 :]:
        lines.append(
            f"Interim look: {plan.looks[look]} of {ahead[-1]} seeds have been run. Most of the "
            f"{level} is kept for later, so only large differences are significant. p is adjusted "
            "for that: a row may be worse in all seeds and have p = 1.000."
        )
    # Each schedule of looks was declared for the whole level.
    if len(board.schedules) > 1 and all(board.schedules):
        families = [(len(plan.family(f)), plan.alpha * plan.share(f)) for f in plan.levels()]
        total = sum(chance_over_schedules(board.schedules, part, n) for n, part in families)
        lines.append(
            "Changed looks: the looks were declared anew while records were being made. If the "
            f"look at {max(map(max, board.schedules))} seeds is taken, the chance of a false "
            f"difference over all looks that were ever declared is up to {percent(total)}."
        )
    return lines


def _history(board: Board, shown: Callable[[str], str]) -> list[str]:
    """Return the suite's own remark on its declaration."""
    declared = str(comparison(board.config).get("remark") or "")
    return [f"History: {shown(declared)}"] if declared else []


def _commits(rows: Sequence[Row], name: Callable[[str], str]) -> list[str]:
    """Name the rows that were run at another commit than most records."""
    records = [record for row in rows for record in row.records]
    votes = Counter(record.provenance.commit for record in records)
    if len(votes) < 2:
        return []
    # In a tie the commit that sorts first, so that the same records make the same page.
    most = min(votes, key=lambda commit: (-votes[commit], commit))
    ended = max(_started(records, most))
    # Commits of the same rows share a clause.
    clauses: dict[str, list[str]] = {}
    for commit in sorted(votes.keys() - {most}, key=lambda commit: min(_started(records, commit))):
        names = [name(row.name) for row in rows if any(_started(row.records, commit))]
        later = " later," * (min(_started(records, commit)) > ended)
        clauses.setdefault(f"{listing(names, 12)}{later} at", []).append(commit[:8])
    said = "; ".join(f"{names} {listing(commits)}" for names, commits in clauses.items())
    return [
        f"Commits: most records were run at {most[:8]}; {said}. If a router was changed in "
        "between, it was tested on the same seeds again."
    ]


def _started(records: Sequence[Record], commit: str) -> list[str]:
    """Return the times at which the records of a commit were started."""
    return [one.provenance.started for one in records if one.provenance.commit == commit]


def _time(board: Board, name: Callable[[str], str]) -> list[str]:
    """Compare the training time of the rows that beat the matched dense model with its own."""
    matched = next((row for row in board.ranked if row.name == board.matched_control), None)
    if matched is None:
        return []
    routers = [row for row in board.ranked if row.role == "ranked"]
    found = [(row, board.outcome(row, matched.name)) for row in routers]
    best = [row for row, outcome in found if outcome and word(outcome) == "better"]
    rows = best or routers
    # Tokens per second, so the slower row has the larger time. Some rows have no times.
    ratios = [1 / ratio for row in rows if (ratio := measures.relative_throughput(row, matched))]
    if not ratios:
        return []
    which = f"rows that beat {name(matched.name)}" if best else "routers"
    some = f" (timed: {len(ratios)} of {len(rows)})" * (len(ratios) < len(rows))
    took = _range(ratios, lambda ratio: number(ratio, 2))
    return [
        f"Time: equal FLOPs are not equal time. Per token, the {which}{some} train {took} times "
        f"as long as {name(matched.name)}."
    ]


def left_out(board: Board, shown: Callable[[str], str]) -> list[str]:
    """Say of each row that was declared and has no comparison what happened to it."""
    unranked = {row.name: row for row in board.unranked}
    never = [shown(name) for name in board.judgement.absent if name not in unranked]
    lines = [f"Not run: {listing(never, 12)}."] if never else []
    for name in board.judgement.absent:
        if name not in unranked:
            continue
        row = unranked[name]
        # One bad seed takes the whole row out, so the seeds are named.
        bad = sorted({record.cell.seed for record in row.records if not counts(record)})
        happened = _OUT.get(row.status, f"is {row.status}")
        where = f" in seed{'s' * (len(bad) > 1)} {seeds(bad)}" if bad else ""
        said = f"{shown(name)} {happened}{where}, so the whole row is left out"
        lost = [shown(r) for r, control in board.judgement.outcomes if control == name]
        lines.append(said + (f", and {listing(lost)} cannot be compared with it." if lost else "."))
    if lines:
        lines.append("Comparisons that could not be made still count in the correction of p.")
    return lines
