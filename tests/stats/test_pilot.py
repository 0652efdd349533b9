import numpy as np
import pytest
from scipy import stats

from bench.errors import UserError
from bench.stats import CellCost, Comparison, Plan, all_pairs, power

COST = {"a": CellCost(2.0, 0.5), "b": CellCost(3.0, 0.25), "c": CellCost(1.0, 1.0)}


def pilot(seeds: int, sd: float = 0.01, rows: str = "abc") -> dict[str, dict[int, float]]:
    rng = np.random.default_rng(seeds)
    return {row: dict(enumerate(rng.normal(2 + 0.02 * i, sd, seeds))) for i, row in enumerate(rows)}


def test_two_rows_need_what_a_paired_t_test_needs() -> None:
    """With one comparison and no prior the answer is the textbook's.

    The first n with power 0.8 by the noncentral t.
    """
    losses = pilot(6)
    (need,) = power(losses, Plan((Comparison("a", "b"),), margin=0.01), COST)
    effect = 0.01 / np.std([losses["a"][s] - losses["b"][s] for s in range(6)], ddof=1)

    def reached(n: int) -> bool:
        critical, shift = stats.t.isf(0.025, n - 1), effect * np.sqrt(n)
        return (
            stats.nct.sf(critical, n - 1, shift)
            + np.nan_to_num(stats.nct.cdf(-critical, n - 1, shift))
            >= 0.8
        )

    assert need.seeds == next(n for n in range(2, 500) if reached(n))
    assert need.seeds is not None and need.missing is not None and need.seeds_upper is not None
    assert need.seeds_upper > need.seeds
    assert need.missing == need.seeds - 6
    assert need.flops == need.missing * 5.0 and need.hours == need.missing * 0.75


def test_larger_effects_need_fewer_seeds_and_a_stated_effect_is_used() -> None:
    losses = pilot(4)
    plan = Plan(all_pairs("abc"), margin=0.01)
    small, large = power(losses, plan, COST), power(losses, plan, COST, effect=0.03)
    assert all(
        a.seeds is not None and b.seeds is not None and a.seeds > b.seeds
        for a, b in zip(small, large, strict=True)
    )
    observed = power(losses, plan, COST, effect="observed")
    assert [need.effect for need in observed] == pytest.approx(
        [
            abs(np.mean([losses[n.row][s] - losses[n.control][s] for s in range(4)]))
            for n in observed
        ]
    )


def test_no_seeds_are_missing_once_there_are_enough() -> None:
    (need,) = power(pilot(30), Plan((Comparison("a", "b"),), margin=0.05), COST)
    assert need.missing == 0 and need.flops == 0.0 and need.hours == 0.0


def test_what_cannot_be_known_is_none() -> None:
    plan = Plan((Comparison("a", "b"),), margin=0.01)
    (one,) = power(pilot(1), plan, COST)
    assert (one.seeds, one.seeds_upper, one.flops, one.missing) == (None, None, None, None)
    (hopeless,) = power(pilot(4, sd=5.0), plan, COST)
    assert hopeless.seeds is None
    (free,) = power(pilot(4), plan, {})
    assert free.seeds is not None and free.flops is None


def test_a_missing_number_of_seeds_says_why() -> None:
    plan = Plan((Comparison("a", "b"),), margin=0.01)
    flat = {"a": dict.fromkeys(range(3), 1.5), "b": dict.fromkeys(range(3), 1.0)}
    (same,) = power(flat, plan, COST)
    assert (same.sd, same.say(same.seeds)) == (0.0, "no variance")
    (one,) = power(pilot(1), plan, COST)
    assert one.say(one.seeds) == "unknown"
    (hopeless,) = power(pilot(4, sd=5.0), plan, COST)
    assert hopeless.say(hopeless.seeds) == "over 512"


def test_impossible_questions_are_refused() -> None:
    plan = Plan((Comparison("a", "b"),), margin=0.01)
    with pytest.raises(UserError, match="effect"):
        power(pilot(3), plan, COST, effect=-0.1)
    with pytest.raises(UserError, match="power"):
        power(pilot(3), plan, COST, target=1.0)
