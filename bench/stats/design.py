"""Compute the power of a design and its smallest detectable differences.

The power belongs to the rule for verdicts (`bench.stats.families`): a difference counts if the
moderated t test reaches the corrected level and the plain paired t test the family's level.
"""

import numpy as np
from scipy import special

from bench.stats.paired import Floats

POWER = 0.8
_NODES = 32


def rejection_power(
    effect: Floats, n: Floats, prior_df: Floats, ratio: Floats, comparisons: int, level: float
) -> Floats:
    """Return the probability to find a true difference at the first step of Holm's procedure.

    Given the sample variance, both tests compare |mean| with a bound, and the mean is normal. The
    rest is one integral over the sample SD, by Gauss-Legendre quadrature. With `prior_df` 0 and one
    comparison it is the noncentral t.

    Args:
        effect: true difference in SDs of a single difference, `[pair]`.
        n: seeds, `[pair]`.
        prior_df: prior degrees of freedom, capped, `[pair]`.
        ratio: prior variance over true variance, `[pair]`; unused where `prior_df` is 0.
        comparisons: size of the family.
        level: level of the family.
    """
    root = np.sqrt(n)[:, None]
    bound, weights = _bounds(n, prior_df, ratio, comparisons, level)
    shift = effect[:, None] * root
    found = special.ndtr(shift - bound) + special.ndtr(-shift - bound)
    return np.where(n >= 2.0, (found * weights).sum(-1), 0.0)


def _bounds(
    n: Floats, prior_df: Floats, ratio: Floats, comparisons: int, level: float
) -> tuple[Floats, Floats]:
    """Return the bound on |z| of the mean at each node of the sample SD, and the nodes' weights.

    Both are `[pair, node]`.
    """
    df = n - 1.0
    variance = np.ones((n.size, _NODES))
    weights = np.full((n.size, _NODES), 1.0 / _NODES)
    nodes, mass = np.polynomial.legendre.leggauss(_NODES)
    # One set of nodes per number of degrees of freedom, over nearly all of the chi distribution.
    for value in np.unique(df[df >= 1.0]):
        low, high = np.sqrt(special.chdtri(value, [1.0 - 1e-13, 1e-13]) / value)
        sd = low + (high - low) * (nodes + 1.0) / 2.0
        density = mass * np.exp((value - 1.0) * np.log(sd) - value * sd**2 / 2.0 + value / 2.0)
        variance[df == value] = sd**2
        weights[df == value] = density / density.sum()
    # The moderated variance at each node: prior and sample variance, by degrees of freedom.
    squeezed = (prior_df * np.where(prior_df > 0.0, ratio, 0.0))[:, None] + df[:, None] * variance
    squeezed = squeezed / np.maximum(prior_df + df, 1e-300)[:, None]
    safe = np.maximum(df, 1.0)
    moderated = -special.stdtrit(safe + prior_df, level / (2.0 * comparisons))
    plain = -special.stdtrit(safe, level / 2.0)
    return np.maximum(
        moderated[:, None] * np.sqrt(squeezed), plain[:, None] * np.sqrt(variance)
    ), weights


def detectable(
    sd: Floats,
    n: Floats,
    prior_df: Floats,
    prior_variance: float | Floats,
    comparisons: int,
    level: float,
    power: float = POWER,
) -> Floats:
    """Return the smallest true difference that is found with probability `power`.

    It is in the unit of `sd`, and infinite below two seeds.

    Args:
        sd: SD of a single difference, taken as the true one, `[pair]`.
        n: seeds, `[pair]`.
        prior_df: prior degrees of freedom, capped, `[pair]`.
        prior_variance: prior variance of the family, or of each pair.
        comparisons: size of the family.
        level: level of the family.
        power: wanted probability.
    """
    usable = (n >= 2.0) & (sd > 0.0)
    answer = np.where(n >= 2.0, 0.0, np.inf)
    if not usable.any():
        return answer
    n, prior_df, scale = n[usable], prior_df[usable], sd[usable]
    ratio = np.broadcast_to(prior_variance, sd.shape)[usable] / scale**2
    bound, weights = _bounds(n, prior_df, ratio, comparisons, level)
    # Power rises with the difference, so bisect. At the upper end it is 1.
    low, high = np.zeros_like(n), bound[:, -1] + 10.0
    for _ in range(30):
        middle = (low + high) / 2.0
        found = (
            (special.ndtr(middle[:, None] - bound) + special.ndtr(-middle[:, None] - bound))
            * weights
        ).sum(-1)
        low, high = np.where(found < power, middle, low), np.where(found < power, high, middle)
    answer[usable] = high / np.sqrt(n) * scale
    return answer
