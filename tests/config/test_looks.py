"""Looks that can be held are judged without a warning.

Others are refused, and read over in records.
"""

import pytest

from bench.config.looks import LARGEST_LOOK, MOST_LOOKS, possible, without_impossible
from bench.stats.sequential import nominal_levels


@pytest.mark.parametrize(
    "looks",
    [
        (1,),
        (0, 2),
        (-3,),
        (3, 3),
        (6, 3),
        (2, LARGEST_LOOK + 1),
        tuple(range(2, MOST_LOOKS + 3)),
        (10**400,),
    ],
)
def test_impossible_looks(looks: tuple[int, ...]) -> None:
    assert not possible(looks)
    config = {"name": "s", "comparison": {"margin": 0.02, "looks": list(looks)}}
    assert without_impossible(config) == {"name": "s", "comparison": {"margin": 0.02, "looks": []}}


@pytest.mark.parametrize(
    "config",
    [{}, {"comparison": None}, {"comparison": {"margin": 0.1}}, {"comparison": {"looks": [3, 6]}}],
)
def test_other_configurations_stay_as_they_are(config: dict[str, object]) -> None:
    assert without_impossible(config) == config


@pytest.mark.parametrize("alpha", [0.4999, 0.05, 1e-4, 1e-6, 1e-10])
@pytest.mark.parametrize(
    "looks",
    [
        (2,),
        (2, 3, LARGEST_LOOK),
        (LARGEST_LOOK - 1, LARGEST_LOOK),
        tuple(range(LARGEST_LOOK - MOST_LOOKS + 1, LARGEST_LOOK + 1)),
    ],
)
def test_the_extremes_of_what_is_possible_have_levels(looks: tuple[int, ...], alpha: float) -> None:
    """Up to the smallest level that a suite may ask for, shared among hundreds of comparisons."""
    assert possible(looks)
    levels = nominal_levels(looks, alpha)
    assert all(0 < level <= alpha * (1 + 1e-9) for level in levels)
