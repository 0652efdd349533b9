"""Judge whether a rerun confirms a record."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bench.stats import Comparison, Plan, judge_board

IDENTICAL = 1e-6
"""Nats per byte. Smaller differences come from the last bits of another machine's arithmetic."""


@dataclass(frozen=True)
class Reproduction:
    """The result of a rerun.

    Attributes:
        verdict: "confirmed", "refuted" or "inconclusive".
        detail: reason of the verdict, in one sentence.
        differences: seed -> rerun minus recorded, nats per byte.
    """

    verdict: Literal["confirmed", "refuted", "inconclusive"]
    detail: str
    differences: dict[int, float]


def compare(
    recorded: Mapping[int, float], rerun: Mapping[int, float], margin: float, alpha: float = 0.05
) -> Reproduction:
    """Compare losses by seed.

    Args:
        recorded: seed -> loss in the record, nats per byte.
        rerun: seed -> loss of the rerun. Seeds without one are left out.
        margin: the suite's margin, nats per byte.
        alpha: level of the tests.
    """
    differences = {seed: rerun[seed] - recorded[seed] for seed in sorted(recorded) if seed in rerun}
    if not differences:
        return Reproduction("inconclusive", "no seed was rerun to its end", {})
    worst = max(abs(value) for value in differences.values())
    if worst <= IDENTICAL:
        return Reproduction(
            "confirmed", f"every seed repeats its loss to {worst:.1g} nats a byte", differences
        )
    # Otherwise the two are judged like two rows of a board.
    plan = Plan(comparisons=(Comparison("rerun", "recorded"),), margin=margin, alpha=alpha)
    (outcome,) = judge_board({"rerun": dict(rerun), "recorded": dict(recorded)}, plan).outcomes
    low, high = outcome.interval
    interval = f"{100 * (1 - alpha):g} % interval {low:+.4f} to {high:+.4f}"
    found = f"mean difference {outcome.difference:+.4f} nats a byte, {interval}, margin {margin:g}"
    # Refuted means that even the interval lies beyond the margin.
    if outcome.n >= 2 and (low > margin or high < -margin):
        return Reproduction("refuted", found, differences)
    if outcome.verdict == "equivalent" or (outcome.n >= 2 and -margin <= low and high <= margin):
        return Reproduction("confirmed", found, differences)
    return Reproduction("inconclusive", found, differences)
