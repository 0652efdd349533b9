from typing import Any

import pytest

from bench.errors import UserError
from bench.stats.comparisons import PRIMARY_SHARE, Comparison, Plan, all_pairs


def test_all_pairs_names_each_pair_once() -> None:
    assert [(c.row, c.control) for c in all_pairs(["a", "b", "c"])] == [
        ("a", "b"),
        ("a", "c"),
        ("b", "c"),
    ]


def test_families_share_alpha_and_one_alone_has_it_all() -> None:
    primary = (Comparison("a", "b"),)
    both = Plan(primary + all_pairs(["a", "b", "c"]), margin=0.01)
    assert both.levels() == {
        "primary": pytest.approx(0.05 * PRIMARY_SHARE),
        "secondary": pytest.approx(0.05 * (1 - PRIMARY_SHARE)),
    }
    assert Plan(primary, margin=0.01).levels() == {"primary": 0.05}
    assert sum(both.levels().values()) == pytest.approx(0.05)


def test_rows_are_in_the_order_of_first_mention() -> None:
    assert Plan((Comparison("b", "x"), Comparison("a", "x")), margin=0.1).rows == ("b", "x", "a")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"margin": 0.0}, "margin"),
        ({"margin": float("nan")}, "margin"),
        ({"alpha": 0.0}, "alpha"),
        ({"alpha": 1.5}, "alpha"),
        ({"looks": (6, 3)}, "looks"),
        ({"looks": (1, 3)}, "looks"),
        ({"looks": (3, 3)}, "looks"),
        ({"largest_effect": -0.1}, "largest_effect"),
        ({"comparisons": (Comparison("a", "a"),)}, "itself"),
        ({"comparisons": (Comparison("a", "b"), Comparison("b", "a"))}, "twice"),
    ],
)
def test_a_plan_that_cannot_be_judged_is_refused(options: dict[str, Any], said: str) -> None:
    chosen: dict[str, Any] = {"comparisons": (Comparison("a", "b"),), "margin": 0.01} | options
    with pytest.raises(UserError, match=said):
        Plan(**chosen)
