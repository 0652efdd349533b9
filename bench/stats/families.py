"""Test one family of differences as a whole. This rule decides for boards and for studies.

A difference is significant if two tests agree: the moderated t test, Holm-adjusted within the
family, and the plain paired t test, unadjusted, both at the family's level. The first has power
with few seeds. The second keeps its level for each single difference, for any variances of the
other rows. Equivalence needs the same of the two one-sided tests.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from bench.stats.comparisons import FAMILIES, Family, Plan
from bench.stats.design import POWER, detectable
from bench.stats.moderation import ModeratedTests, Prior, fit_prior, moderate, row_variances
from bench.stats.paired import (
    Floats,
    PairedTests,
    Pairs,
    TTests,
    pair_differences,
    paired_t,
)


@dataclass(frozen=True)
class FamilyTests:
    """Tests of one family, arrays `[..., pair]`.

    Attributes:
        plain: paired t tests.
        moderated: t tests by moderated variances.
    """

    plain: PairedTests
    moderated: ModeratedTests

    def adjusted(self, p: Callable[[TTests], Floats]) -> Floats:
        """Return p values by the whole rule, to compare with the family's level.

        Args:
            p: returns p values of a hypothesis about each difference, by one kind of test.
        """
        return np.maximum(holm(p(self.moderated)), p(self.plain))

    @property
    def p_difference(self) -> Floats:
        """P values of no difference, by the whole rule."""
        return self.adjusted(lambda tests: tests.outside(0.0, 0.0))

    def p_equivalence(self, margin: float) -> Floats:
        """Return p values of a difference at or beyond the margin, by the whole rule."""
        return self.adjusted(lambda tests: tests.inside(-margin, margin))

    def half_width(self, level: float) -> Floats:
        """Return the half-width of the family's simultaneous intervals around the means.

        It is the wider of the Bonferroni interval from the moderated variance and the plain t
        interval at the family's level. It excludes 0 only if the rule finds a difference; Holm may
        find more differences, and `cut_interval` ends their intervals at 0.
        """
        count = max(self.plain.n.shape[-1], 1)
        return np.maximum(self.moderated.half_width(level / count), self.plain.half_width(level))

    def detectable(self, level: float, power: float = POWER) -> Floats:
        """Return the smallest true differences that are found with probability `power`."""
        tests = self.moderated
        return detectable(
            np.sqrt(tests.variance),
            tests.n,
            tests.prior_df,
            tests.prior.variance,
            tests.n.shape[-1],
            level,
            power,
        )


def holm(p: Floats) -> Floats:
    """Adjust p values along the last axis by Holm's step-down procedure (Holm 1979).

    A comparison without a p value (NaN) still counts: the family was declared before the run and
    does not shrink if a cell fails. Its adjusted value stays NaN.
    """
    filled = np.where(np.isnan(p), 1.0, p)
    count = p.shape[-1]
    # Multiply the smallest by the count, the next by one less, and so on; never let one fall.
    order = np.argsort(filled, axis=-1, kind="stable")
    scaled = np.take_along_axis(filled, order, axis=-1) * (count - np.arange(count))
    stepped = np.minimum(np.maximum.accumulate(scaled, axis=-1), 1.0)
    adjusted = np.empty_like(stepped)
    np.put_along_axis(adjusted, order, stepped, axis=-1)
    return np.where(np.isnan(p), np.nan, adjusted)


def compare_family(values: Floats, pairs: Pairs, rows: Prior) -> FamilyTests:
    """Test every pair of one family.

    Args:
        values: losses, `[..., row, seed]`, NaN where missing.
        pairs: row indices, `[pair, 2]`.
        rows: prior fitted to the residual variances of all rows.
    """
    plain = paired_t(pair_differences(values, pairs))
    return FamilyTests(plain, moderate(plain, rows))


def pair_indices(plan: Plan) -> dict[Family, Pairs]:
    """Return each family's pairs as indices into `plan.rows`, `[pair, 2]`.

    Families without comparisons are left out.
    """
    index = {row: i for i, row in enumerate(plan.rows)}
    pairs: dict[Family, Pairs] = {}
    for family in FAMILIES:
        chosen = [
            (index[comparison.row], index[comparison.control]) for comparison in plan.family(family)
        ]
        if chosen:
            pairs[family] = np.array(chosen, dtype=np.intp)
    return pairs


def compare_board(values: Floats, pairs: Mapping[Family, Pairs]) -> dict[Family, FamilyTests]:
    """Test all families of a board, or of a batch of boards.

    Args:
        values: losses `[..., row, seed]`, NaN where missing; a batch must be complete.
        pairs: family -> row indices, `[pair, 2]`.
    """
    # The prior of the rows is the same for all families.
    rows = fit_prior(*row_variances(values))
    return {family: compare_family(values, chosen, rows) for family, chosen in pairs.items()}
