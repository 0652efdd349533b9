"""The spent share of a budget, by its two limits."""

from math import inf

import pytest

from bench.training.task import Allowance


@pytest.mark.parametrize(
    ("allowance", "share"),
    [
        (Allowance(200.0, inf), 0.25),
        (Allowance(inf, 20.0), 0.5),
        # The limit that is reached first ends the training.
        (Allowance(200.0, 20.0), 0.5),
        (Allowance(0.0, inf), 1.0),
        (Allowance(inf, 0.0), 1.0),
    ],
)
def test_the_spent_share_is_that_of_the_limit_in_force(allowance: Allowance, share: float) -> None:
    assert allowance.spent(50.0, 10) == share
