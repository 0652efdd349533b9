"""Judge the rows of a board by its suite's declaration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from bench.stats import (
    Comparison,
    Friedman,
    NoiseFloor,
    Outcome,
    Plan,
    Rank,
    all_pairs,
    judge_board,
)


@dataclass(frozen=True)
class Entrant:
    """One row for the statistics.

    Attributes:
        name: the row.
        control: row of `random` on the same paths, if the row is a router that has one.
        is_router: it is judged against the controls; else it is a control or a twin itself.
        twin_of: the row that it repeats, for an A/A twin.
        losses: seed -> nats a byte; empty for a row that was declared and cannot be ranked.
    """

    name: str
    control: str | None
    is_router: bool
    twin_of: str | None
    losses: Mapping[int, float]


@dataclass(frozen=True)
class Judgement:
    """Declared comparisons by (row, control), ranks by row, and findings on the whole board."""

    outcomes: Mapping[tuple[str, str], Outcome] = field(
        default_factory=dict[tuple[str, str], Outcome]
    )
    ranks: Mapping[str, Rank] = field(default_factory=dict[str, Rank])
    seeds: tuple[int, ...] = ()
    noise: tuple[NoiseFloor, ...] = ()
    friedman: Friedman | None = None
    correlation: float = float("nan")
    look: int = 0
    absent: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    plan: Plan | None = None


def word(outcome: Outcome) -> str:
    """Return the verdict from the row's side: "worse" is a "better" that the control won."""
    return (
        "worse"
        if outcome.verdict == "better" and outcome.winner != outcome.row
        else outcome.verdict
    )


def declared_plan(entrants: Sequence[Entrant], declared: Mapping[str, Any]) -> Plan:
    """Return the comparisons that the suite's declaration and the rows' roles demand.

    `judge_rows` describes them.
    """
    ranked = [entrant for entrant in entrants if entrant.losses]
    names = {entrant.name for entrant in entrants}
    matched = str(declared["dense_matched"])
    primary = [
        Comparison(entrant.name, control)
        for entrant in entrants
        if entrant.is_router
        for control in dict.fromkeys((entrant.control, matched if matched in names else None))
        if control is not None and control != entrant.name
    ]
    # Two rows may each name the other as its control: one comparison, not two.
    unique: dict[frozenset[str], Comparison] = {}
    for pair in primary:
        unique.setdefault(frozenset((pair.row, pair.control)), pair)
    twins = [(entrant.twin_of, entrant.name) for entrant in ranked if entrant.twin_of]
    return Plan(
        comparisons=(*unique.values(), *all_pairs([entrant.name for entrant in ranked])),
        margin=float(declared["margin"]),
        alpha=float(declared["alpha"]),
        looks=tuple(declared.get("looks") or ()),
        largest_effect=declared.get("largest_effect"),
        twins=tuple(twins),
    )


def judge_rows(entrants: Sequence[Entrant], declared: Mapping[str, Any]) -> Judgement:
    """Judge the rows of one ranking.

    The primary family is each router against `random` on the same paths and against the matched
    dense model, whether or not the row ran to its end: a failure must not make the correction
    milder. The secondary family is all pairs.

    Args:
        entrants: ranked rows, and those that would be but for their status.
        declared: the suite's comparison settings.
    """
    plan = declared_plan(entrants, declared)
    ranked = [entrant for entrant in entrants if entrant.losses]
    # The ranks of a board with one row or none.
    alone = {e.name: Rank(e.name, fmean(e.losses.values()), 1, 1, 1) for e in ranked}
    # A single row has nothing to be compared with: it is the first of one.
    if len(ranked) < 2:
        return Judgement(ranks=alone, plan=plan)
    said = judge_board({entrant.name: entrant.losses for entrant in ranked}, plan)
    # Declared rows without a loss count in the correction, but take no rank.
    absent = len(said.rows) - len(ranked)
    return Judgement(
        outcomes={(o.row, o.control): o for o in said.outcomes if o.family == "primary"},
        ranks={
            rank.row: replace(rank, high=rank.high - absent)
            for rank in said.ranks
            if rank.row in {e.name for e in ranked}
        },
        seeds=said.seeds,
        noise=said.noise,
        friedman=said.friedman,
        correlation=said.mean_correlation,
        look=said.look,
        absent=said.absent,
        notes=said.notes,
        plan=plan,
    )
