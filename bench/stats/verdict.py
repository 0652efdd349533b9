"""Judge a board: the entry point from losses and a plan to verdicts."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from bench.stats.align import Aligned, Losses, align
from bench.stats.comparisons import Comparison, Family, Plan
from bench.stats.families import compare_board, pair_indices
from bench.stats.noise import NoiseFloor, noise_floor
from bench.stats.outcome import Outcome, build_outcomes
from bench.stats.paired import Floats, seed_correlation
from bench.stats.ranks import Friedman, Rank, friedman, rank_intervals
from bench.stats.sequential import family_level


@dataclass(frozen=True, eq=False)
class Verdicts:
    """The verdicts of a board.

    Attributes:
        outcomes: one per comparison, in the order of the plan.
        rows: all compared rows, in the order of the plan.
        seeds: seeds of the look.
        ranks: rank intervals and tiers, from the secondary family; best mean first.
        correlation: Pearson correlation over seeds between `rows`, `[row, row]`.
        mean_correlation: its mean off the diagonal.
        prior: family -> (prior degrees of freedom before the cap, prior SD) of the moderation.
        friedman: rank test over complete seeds, if there are enough.
        noise: A/A controls.
        look: index of the reached look; -1 before the first, 0 if none is declared.
        absent: planned rows without a loss. Their comparisons still count in the correction.
        notes: remarks on the whole board.
    """

    outcomes: tuple[Outcome, ...]
    rows: tuple[str, ...]
    seeds: tuple[int, ...]
    ranks: tuple[Rank, ...]
    correlation: Floats
    mean_correlation: float
    prior: dict[Family, tuple[float, float]]
    friedman: Friedman | None
    noise: tuple[NoiseFloor, ...]
    look: int
    absent: tuple[str, ...]
    notes: tuple[str, ...]

    def find(self, row: str, control: str, family: Family = "primary") -> Outcome | None:
        """Return the outcome of `row` against `control`, or None if it was not declared."""
        return next(
            (o for o in self.outcomes if (o.row, o.control, o.family) == (row, control, family)),
            None,
        )


def judge_board(losses: Losses, plan: Plan) -> Verdicts:
    """Judge every planned comparison, paired by seed.

    Args:
        losses: row -> seed -> headline loss, nats per byte. A cell that failed is NaN; a cell that
            did not run is absent.
        plan: the plan, declared before the run.

    Raises:
        UserError: no planned row has a loss.
    """
    board = align(losses, plan)
    levels = plan.levels(max(board.look, 0))
    found: dict[Comparison, Outcome] = {}
    prior: dict[Family, tuple[float, float]] = {}
    for family, tests in compare_board(board.values, pair_indices(plan)).items():
        comparisons, fitted = plan.family(family), tests.moderated.prior
        prior[family] = fitted.df.item(), float(np.sqrt(fitted.variance.item()))
        found.update(
            zip(
                comparisons,
                build_outcomes(comparisons, tests, board, plan, levels[family]),
                strict=True,
            )
        )
    correlation = seed_correlation(board.values)
    # Ranks follow from all pairs alone.
    secondary = [found[c] for c in plan.family("secondary")]
    return Verdicts(
        outcomes=tuple(found[comparison] for comparison in plan.comparisons),
        rows=board.rows,
        seeds=board.seeds,
        ranks=rank_intervals(_means(board), _ordered(secondary)) if secondary else (),
        correlation=correlation,
        mean_correlation=_off_diagonal_mean(correlation),
        prior=prior,
        friedman=friedman(board.rows, board.values, plan.alpha),
        noise=_twins(losses, board, plan),
        look=board.look,
        absent=tuple(
            row for row, own in zip(board.rows, board.values, strict=True) if np.isnan(own).all()
        ),
        notes=_board_notes(board, plan),
    )


def _off_diagonal_mean(correlation: Floats) -> float:
    """Return the mean correlation of two rows; NaN if no two have enough seeds."""
    # Leave out the diagonal, which is 1, and pairs with too few seeds.
    off = correlation[~np.eye(len(correlation), dtype=bool)]
    off = off[~np.isnan(off)]
    return float(off.mean()) if off.size else math.nan


def _ordered(outcomes: Iterable[Outcome]) -> set[tuple[str, str]]:
    """Return (better row, other row) of each pair that differs; an equivalent pair has no order."""
    return {
        (o.row, o.control) if o.winner == o.row else (o.control, o.row)
        for o in outcomes
        if o.verdict == "better"
    }


def _twins(losses: Losses, board: Aligned, plan: Plan) -> tuple[NoiseFloor, ...]:
    """Judge the A/A controls at the look of the board, at the level that it has there."""
    seen = {
        row: {seed: own[seed] for seed in board.seeds if seed in own} for row, own in losses.items()
    }
    count = max(len(plan.twins), 1)
    level = family_level(plan.looks, max(board.look, 0), plan.alpha, count)
    return noise_floor(seen, plan.twins, level)


def _means(board: Aligned) -> dict[str, float]:
    """Return the mean loss of each row, nats a byte.

    Some seeds are harder than others. So the mean of a row that lacks seeds is corrected: the rows
    with all seeds show how much harder all seeds are than its own.
    """
    there = ~np.isnan(board.values)
    complete = board.values[there.all(axis=1)]
    usual = complete.mean(axis=0) if len(complete) else np.zeros(len(board.seeds))
    means: dict[str, float] = {}
    for row, values, has in zip(board.rows, board.values, there, strict=True):
        harder = 0.0 if has.all() or not has.any() else usual.mean() - usual[has].mean()
        means[row] = float(values[has].mean() + harder) if has.any() else math.nan
    return means


def _board_notes(board: Aligned, plan: Plan) -> tuple[str, ...]:
    notes: list[str] = []
    if board.late:
        late = ", ".join(map(str, board.late))
        notes.append(
            f"Seeds {late} are left out: looks were declared at "
            f"{', '.join(map(str, plan.looks))} seeds."
        )
    if board.look < 0:
        notes.append(
            f"{len(board.seeds)} seeds so far; the first look was declared at {plan.looks[0]}. No "
            "verdict before that."
        )
    return tuple(notes)
