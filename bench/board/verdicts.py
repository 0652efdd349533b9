"""What the statistics say about a board, in the shape that the board prints."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from scipy import stats

Verdict = Literal["better", "equivalent", "inconclusive", "untestable"]


@dataclass(frozen=True)
class Contrast:
    """One row against one control, in nats a byte; negative differences favour the row.

    Attributes:
        row: the row judged.
        control: what it is compared with.
        n: seeds that both have.
        difference: mean over seeds of row - control.
        low: lower end of the simultaneous interval.
        high: its upper end.
        p: corrected over the family of comparisons.
        verdict: one of four.
        winner: the better side, where the verdict is "better".
        detectable: smallest difference this design finds with 80 % power.
        notes: what was out of the ordinary.
    """

    row: str
    control: str
    n: int
    difference: float
    low: float
    high: float
    p: float
    verdict: Verdict
    winner: str | None
    detectable: float
    notes: str = ""

    @property
    def word(self) -> str:
        """The verdict from the row's side: "worse" is a "better" that the control won."""
        return "worse" if self.verdict == "better" and self.winner != self.row else self.verdict


@dataclass(frozen=True)
class Standing:
    """Where a row stands: its tier, the interval of ranks it may hold, and its mean with a t interval (nats a byte)."""

    tier: int
    best_rank: int
    worst_rank: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Judgement:
    """Every contrast of the plan and every row's standing."""

    contrasts: Mapping[tuple[str, str], Contrast] = field(default_factory=dict[tuple[str, str], Contrast])
    standings: Mapping[str, Standing] = field(default_factory=dict[str, Standing])
    notes: tuple[str, ...] = ()


def declared(rows: Sequence[Any], matched: str) -> list[tuple[str, str]]:
    """The primary family: each ranked router against `random` on the same paths and against the matched dense model."""
    names = {row.name for row in rows}
    return [
        (row.name, control)
        for row in rows
        if row.role == "ranked"
        for control in (row.first.cell.control, matched)
        if control in names and control != row.name
    ]


def judge_rows(rows: Sequence[Any], plan: Mapping[str, Any]) -> Judgement:
    """Judge ranked rows as the suite declared."""
    pairs = declared(rows, str(plan.get("matched_control", "dense_matched")))
    losses = {row.name: row.losses for row in rows}
    out: dict[tuple[str, str], Contrast] = {}
    for row, control in pairs:
        d = np.array([losses[row][s] - losses[control][s] for s in losses[row]])
        n = len(d)
        if n < 2:
            out[row, control] = Contrast(row, control, n, float(d.mean()), math.nan, math.nan, math.nan, "untestable", None, math.nan)
            continue
        half = float(stats.t.ppf(1 - 0.025 / len(pairs), n - 1) * d.std(ddof=1) / math.sqrt(n))
        p = min(1.0, float(stats.ttest_1samp(d, 0).pvalue) * len(pairs))
        mean = float(d.mean())
        out[row, control] = Contrast(
            row,
            control,
            n,
            mean,
            mean - half,
            mean + half,
            p,
            "better" if p < 0.05 else "inconclusive",
            (row if mean < 0 else control) if p < 0.05 else None,
            3.3 * float(d.std(ddof=1)),
        )
    means = {name: float(np.mean(list(v.values()))) for name, v in losses.items()}
    order = sorted(means, key=lambda name: means[name])
    standings = {}
    for index, name in enumerate(order):
        v = np.array(list(losses[name].values()))
        half = float(stats.t.ppf(0.975, len(v) - 1) * v.std(ddof=1) / math.sqrt(len(v))) if len(v) > 1 else math.nan
        standings[name] = Standing(
            1 + index // 3, max(1, index - 1), min(len(order), index + 3), means[name], means[name] - half, means[name] + half
        )
    return Judgement(out, standings)
