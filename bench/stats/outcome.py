"""Compute the outcome of one comparison: its numbers, its verdict, and notes for the reader."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from bench.stats.align import Aligned
from bench.stats.comparisons import Comparison, Family, Plan
from bench.stats.families import FamilyTests
from bench.stats.paired import sign_flip

Verdict = Literal["better", "equivalent", "inconclusive", "untestable"]


@dataclass(frozen=True)
class Outcome:
    """The outcome of one comparison.

    Losses are in nats per byte. Numbers that do not exist are NaN.

    Attributes:
        row: first row.
        control: second row.
        family: family that the comparison was declared in.
        verdict: "better" if the rows differ, and `winner` is the better one; "equivalent" if the
            difference lies within the margin, with significance, even if it is not 0; "untestable"
            if this design could not detect the largest plausible difference, or has fewer than two
            common seeds; else "inconclusive".
        winner: row with the lower loss if the difference is significant, also within the margin;
            else None.
        seeds: common seeds in use.
        excluded: seed -> reason why it is not used.
        difference: mean of row - control; negative is in favour of `row`.
        interval: `single_step`, cut where the verdict's own test leaves off (`cut_interval`). It
            holds 0 only without a winner, and sticks out of the margin only if not equivalent.
        single_step: simultaneous within the family, at its share of alpha and of this look.
        plain_interval: paired t interval at 1 - alpha, for this comparison alone.
        sd: SD of the difference over seeds.
        p_plain: p value of the paired t test.
        moderated_sd: SD after moderation.
        moderated_df: degrees of freedom of `moderated_sd`.
        p: p value of the moderated t test, not adjusted.
        p_adjusted: p value of the whole rule, adjusted for family, share of alpha and looks. It is
            compared with alpha.
        p_sign_flip: p value of the sign-flip test, not adjusted, which assumes no normality.
        p_equivalence: p value of the moderated two one-sided tests, not adjusted.
        p_equivalence_adjusted: the same, adjusted like `p_adjusted`.
        detectable: smallest true difference that this design finds with 80 % power.
        notes: remarks for the reader, may be empty.
    """

    row: str
    control: str
    family: Family
    verdict: Verdict
    winner: str | None
    seeds: tuple[int, ...]
    excluded: dict[int, str]
    difference: float
    interval: tuple[float, float]
    single_step: tuple[float, float]
    plain_interval: tuple[float, float]
    sd: float
    p_plain: float
    moderated_sd: float
    moderated_df: float
    p: float
    p_adjusted: float
    p_sign_flip: float
    p_equivalence: float
    p_equivalence_adjusted: float
    detectable: float
    notes: str

    @property
    def n(self) -> int:
        """Number of common seeds."""
        return len(self.seeds)


def build_outcomes(
    comparisons: Sequence[Comparison], tests: FamilyTests, board: Aligned, plan: Plan, level: float
) -> Iterator[Outcome]:
    """Yield the outcomes of one family, in order.

    `level` is the family's level at this look. Adjusted p values are scaled from it to alpha.
    """
    columns = _columns(tests, plan, level)
    for k, comparison in enumerate(comparisons):
        numbers = {name: float(column[k]) for name, column in columns.items()}
        mean, width, plain = (
            numbers["difference"],
            numbers.pop("half_width"),
            numbers.pop("plain_half_width"),
        )
        excluded = _excluded(comparison, board)
        verdict, winner, notes = _decide(
            comparison, board, plan, len(board.seeds) - len(excluded), numbers
        )
        own = tests.plain.differences[k]
        yield Outcome(
            row=comparison.row,
            control=comparison.control,
            family=comparison.family,
            verdict=verdict,
            winner=winner,
            seeds=tuple(seed for seed in board.seeds if seed not in excluded),
            excluded=excluded,
            interval=cut_interval((mean - width, mean + width), mean, verdict, winner, plan.margin),
            single_step=(mean - width, mean + width),
            plain_interval=(mean - plain, mean + plain),
            p_sign_flip=sign_flip(own[~np.isnan(own)]),
            notes=" ".join(notes),
            **numbers,
        )


def cut_interval(
    interval: tuple[float, float],
    mean: float,
    verdict: Verdict,
    winner: str | None,
    margin: float,
) -> tuple[float, float]:
    """Return a simultaneous interval without the values that the verdict's test excludes.

    The interval is Bonferroni's, in a single step. Holm's test goes on in steps and may exclude 0
    where the interval does not; then the interval ends at 0. An equivalent difference lies within
    the margin, and so does its interval. The reasons are in docs/decisions, statistics.
    """
    low, high = interval
    # Both cuts may apply: a difference may be real and smaller than the margin.
    if verdict == "equivalent":
        low, high = max(low, -margin), min(high, margin)
    if winner is not None:
        low, high = (low, min(high, 0.0)) if mean < 0.0 else (max(low, 0.0), high)
    return low, high


def _columns(tests: FamilyTests, plan: Plan, level: float) -> dict[str, Any]:
    """Return the numeric fields of `Outcome`, `[pair]` each, and two half-widths."""
    # Readers compare every adjusted p value with alpha, at any look and in any family.
    scale = plan.alpha / level
    return {
        "difference": tests.plain.mean,
        "half_width": tests.half_width(level),
        "plain_half_width": tests.plain.half_width(plan.alpha),
        "sd": np.sqrt(tests.plain.variance),
        "p_plain": tests.plain.p,
        "moderated_sd": np.sqrt(tests.moderated.variance),
        "moderated_df": tests.moderated.df,
        "p": tests.moderated.outside(0.0, 0.0),
        "p_adjusted": np.minimum(tests.p_difference * scale, 1.0),
        "p_equivalence": tests.moderated.inside(-plan.margin, plan.margin),
        "p_equivalence_adjusted": np.minimum(tests.p_equivalence(plan.margin) * scale, 1.0),
        "detectable": tests.detectable(level),
    }


def _excluded(comparison: Comparison, board: Aligned) -> dict[int, str]:
    """Return seed -> reason why this pair does not use it."""
    reasons: dict[int, str] = {}
    # Both rows may lack the same seed, each for its own reason.
    for seed in board.seeds if board.reasons else ():
        said = [
            f"{row}: {board.reasons[row, seed]}"
            for row in (comparison.row, comparison.control)
            if (row, seed) in board.reasons
        ]
        if said:
            reasons[seed] = "; ".join(said)
    return reasons


def _no_test(board: Aligned, plan: Plan, used: int, numbers: dict[str, float]) -> str:
    """Return why a comparison with `used` common seeds has no test; empty if it has one."""
    if used < 2:
        return "Fewer than two common seeds: no variance to judge by."
    # Before the first declared look there is no level to test at.
    if board.look < 0:
        return f"The first look was declared at {plan.looks[0]} seeds."
    # Without any variance a t test has no meaning, unless other rows lend theirs.
    if numbers["sd"] == numbers["moderated_sd"] == 0.0 and numbers["difference"] != 0.0:
        return "No variance to judge by."
    return ""


def _decide(
    comparison: Comparison, board: Aligned, plan: Plan, used: int, numbers: dict[str, float]
) -> tuple[Verdict, str | None, list[str]]:
    """Return verdict, winner and notes of one comparison with `used` common seeds."""
    notes = _seed_notes(board, used, numbers)
    if reason := _no_test(board, plan, used, numbers):
        return "untestable", None, [*notes, reason]
    winner = None
    if numbers["p_adjusted"] <= plan.alpha:
        winner = comparison.row if numbers["difference"] < 0.0 else comparison.control
    # A row that failed in some seeds may have failed because of its losses there.
    failed = [row for row in (comparison.row, comparison.control) if row in board.failed]
    # A difference within the margin may still be significant, so the winner is kept.
    if numbers["p_equivalence_adjusted"] <= plan.alpha and not failed:
        return "equivalent", winner, notes
    if winner is not None and winner not in failed:
        return "better", winner, notes
    if failed:
        notes.append(
            f"{' and '.join(failed)} failed in some seeds: it can't be called better or equivalent "
            "on those that are left."
        )
    # Nothing was found, and nothing could have been found.
    smallest, largest = numbers["detectable"], plan.largest_effect
    if largest is not None and smallest > largest:
        notes.append(
            f"Finds {smallest:.3g} nats at the least; no more than {largest:.3g} is plausible."
        )
        return "untestable", None, notes
    return "inconclusive", None, notes


def _seed_notes(board: Aligned, used: int, numbers: dict[str, float]) -> list[str]:
    """Return notes on the common seeds: that some are missing, or that all agree."""
    notes: list[str] = []
    if used < len(board.seeds):
        notes.append(f"{used} of {len(board.seeds)} seeds are common to both rows.")
    if used >= 2 and board.look >= 0 and numbers["sd"] == 0.0:
        notes.append(
            "Identical losses in every seed."
            if numbers["difference"] == 0.0
            else "The difference is the same in every seed."
        )
    return notes
