"""Imposed paths, token by token."""

from dataclasses import replace

import torch

from bench.backbone.passes import History
from bench.routing.contract import RoutingPlan
from bench.training.imposed import all_upgraded, imposed, of_sequences, takes_upgrade
from tests.world import model, run_of, tokens

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


def test_extras_are_cut_to_the_kept_sequences_and_a_scalar_is_left_out() -> None:
    run = run_of(tokens(3), history=History())
    with torch.no_grad():
        model("mlp_gate").decoder(run)
    plan = run.traces[0].plan
    extras = {"each": torch.arange(3.0), "one": torch.tensor(3.0), "other": torch.zeros(2)}
    run.traces[0] = replace(run.traces[0], plan=replace(plan, extras=extras))
    kept = of_sequences(run, 0, torch.tensor([0, 2])).traces[0].plan
    assert torch.equal(kept.mask, plan.mask[[0, 2]])
    assert {name: value.tolist() for name, value in kept.extras.items()} == {"each": [0.0, 2.0]}
