"""The rule that decides: one family of comparisons, tested as a whole.

A difference is real when two tests agree: the moderated t test, Holm-adjusted within the family,
and the plain paired t test, unadjusted, both at the family's level. The first has the power that
few seeds need; the second holds each single comparison to its level whatever the variances of the
other rows are. Equivalence asks the same of the two one-sided tests.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import special

from bench.stats.correction import holm
from bench.stats.equivalence import tost
from bench.stats.moderation import Moderated, Prior, board_prior, fit_prior, moderate, row_variances
from bench.stats.paired import Floats, PairedTests, Pairs, pair_differences, paired_t, two_sided_p
from bench.stats.plan import FAMILIES, Family, Plan


@dataclass(frozen=True)
class FamilyTests:
    """Tests of one family, arrays `[..., pair]`.

    Attributes:
        differences: first minus second row of each pair, `[..., pair, seed]`.
        plain: paired t tests.
        prior: fitted prior of the variances.
        moderated: moderated variances.
        p: of the moderated t test.
        p_joint: adjusted over the family, and no smaller than the plain p; compare with the
            family's level.
        p_equivalence: of the moderated two one-sided tests.
        p_equivalence_joint: the same for the two one-sided tests.
        half_width: of the simultaneous interval around `plain.mean`.
    """

    differences: Floats
    plain: PairedTests
    prior: Prior
    moderated: Moderated
    p: Floats
    p_joint: Floats
    p_equivalence: Floats
    p_equivalence_joint: Floats
    half_width: Floats


def compare_family(
    values: Floats, pairs: Pairs, rows: Prior, margin: float, level: float
) -> FamilyTests:
    """Test every pair of one family.

    The simultaneous interval is the wider of the Bonferroni interval from the moderated variance
    and the plain t interval at the family's level: it leaves out 0 only where the rule above finds
    a difference. Holm may find more.

    Args:
        values: losses, `[..., row, seed]`, NaN where missing.
        pairs: row indices, `[pair, 2]`.
        rows: prior fitted to the residual variances of all rows.
        margin: half-width of the zone of equivalence.
        level: level of the family.
    """
    differences = pair_differences(values, pairs)
    plain = paired_t(differences)
    n, df = plain.n, np.maximum(plain.n - 1.0, 0.0)
    prior = board_prior(plain.variance, df, rows)
    moderated = moderate(plain.variance, df, prior)
    p = two_sided_p(plain.mean, moderated.variance, n, moderated.df)
    equivalence = tost(plain.mean, moderated.variance, n, moderated.df, margin)
    with np.errstate(invalid="ignore", divide="ignore"):
        wide = -special.stdtrit(moderated.df, level / (2.0 * max(len(pairs), 1))) * np.sqrt(
            moderated.variance / n
        )
        narrow = -special.stdtrit(df, level / 2.0) * np.sqrt(plain.variance / n)
    return FamilyTests(
        differences=differences,
        plain=plain,
        prior=prior,
        moderated=moderated,
        p=p,
        p_joint=np.maximum(holm(p), plain.p),
        p_equivalence=equivalence,
        p_equivalence_joint=np.maximum(
            holm(equivalence), tost(plain.mean, plain.variance, n, df, margin)
        ),
        half_width=np.maximum(wide, narrow),
    )


def pair_indices(plan: Plan) -> dict[Family, Pairs]:
    """Each family's pairs as indices into `plan.rows`, `[pair, 2]`.

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


def compare_board(
    values: Floats, pairs: Mapping[Family, Pairs], margin: float, levels: Mapping[Family, float]
) -> dict[Family, FamilyTests]:
    """Test all families of a board, or of a batch of boards.

    Args:
        values: losses `[..., row, seed]`, NaN where missing; a batch must be complete.
        pairs: family -> row indices, `[pair, 2]`.
        margin: half-width of the zone of equivalence.
        levels: family -> its level.
    """
    rows = fit_prior(*row_variances(values))
    return {
        family: compare_family(values, chosen, rows, margin, levels[family])
        for family, chosen in pairs.items()
    }
