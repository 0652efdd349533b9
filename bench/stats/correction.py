"""Correction for many comparisons."""

import numpy as np

from bench.stats.paired import Floats


def holm(p: Floats) -> Floats:
    """Holm's step-down adjusted p values along the last axis (Holm 1979).

    A comparison that could not be made (NaN) still counts: the family was declared before the run,
    and does not shrink because a cell failed. Its own adjusted value stays NaN.
    """
    filled = np.where(np.isnan(p), 1.0, p)
    count = p.shape[-1]
    order = np.argsort(filled, axis=-1, kind="stable")
    scaled = np.take_along_axis(filled, order, axis=-1) * (count - np.arange(count))
    stepped = np.minimum(np.maximum.accumulate(scaled, axis=-1), 1.0)
    adjusted = np.empty_like(stepped)
    np.put_along_axis(adjusted, order, stepped, axis=-1)
    return np.where(np.isnan(p), np.nan, adjusted)
