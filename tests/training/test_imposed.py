"""Imposed paths, token by token."""

import torch

from bench.routing.contract import RoutingPlan
from bench.training.imposed import all_upgraded, imposed, takes_upgrade

BASE, FULL, BOTH = [True, False], [False, True], [True, True]


def plan(mask: list[list[bool]], weight: list[list[float]] | None = None) -> RoutingPlan:
    weights = None if weight is None else torch.tensor([weight])
    return RoutingPlan(torch.tensor([mask]), weights)


def test_the_larger_weight_says_which_of_both_paths_a_token_takes() -> None:
    made = plan([BASE, FULL, BOTH, BOTH], [[1, 0], [0, 1], [0.75, 0.25], [0.25, 0.75]])
    assert takes_upgrade(made).tolist() == [[False, True, False, True]]
    assert takes_upgrade(plan([BASE, FULL])).tolist() == [[False, True]]


def test_a_path_is_imposed_on_the_marked_tokens_alone() -> None:
    """A path keeps its weight; it gets 1 where paths are mixed, or where it had none."""
    made = plan([BASE, FULL, BOTH, BASE], [[0.5, 0.5], [0, 0.5], [0.75, 0.25], [0.25, 0]])
    upgraded = torch.tensor([[True, False, True, True]])
    where = torch.tensor([[True, True, True, False]])
    found = imposed(made, upgraded, where)
    assert found.mask.tolist() == [[FULL, BASE, FULL, BASE]]
    assert found.weight is not None
    assert found.weight.tolist() == [[[0.5, 0.5], [1, 0.5], [1, 1], [0.25, 0]]]


def test_every_token_is_upgraded() -> None:
    found = all_upgraded(plan([BASE, FULL, BOTH]))
    assert found.mask.tolist() == [[FULL] * 3]
    assert found.counts == (0, 3) and found.weight is None
