from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from bench.stats.correction import holm


def reference(p: Sequence[float]) -> np.ndarray:
    adjusted = multipletests(p, method="holm")
    assert adjusted is not None
    return np.asarray(adjusted[1], dtype=np.float64)


@settings(max_examples=8)  # multipletests collects garbage on every call
@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=40))
def test_holm_is_statsmodels(p: list[float]) -> None:
    np.testing.assert_allclose(holm(np.array(p)), reference(p), atol=1e-12)


def test_a_comparison_that_was_not_made_still_counts() -> None:
    p = np.array([0.01, np.nan, 0.03])
    adjusted = holm(p)
    np.testing.assert_allclose(adjusted[[0, 2]], reference([0.01, 1.0, 0.03])[[0, 2]])
    assert np.isnan(adjusted[1])


def test_leading_axes_are_families_of_their_own() -> None:
    p = np.random.default_rng(0).uniform(size=(3, 2, 6))
    for index in np.ndindex(3, 2):
        np.testing.assert_array_equal(holm(p)[index], holm(p[index]))
