"""Shares of choices in the last part of training, against counting by hand."""

from dataclasses import replace

import pytest
import torch

from bench.routing.contract import LayerTrace, Router, RouterInput
from bench.training.choices import LAST, Choices
from tests.world import fit, model, run_of, tokens


def traces(name: str = "mlp_gate", **options: object) -> tuple[list[Router], list[LayerTrace]]:
    found, run = model(name, options), run_of(tokens())
    found.decoder(run)
    return found.decoder.routers, run.traces


def chosen(trace: LayerTrace, upgraded: int) -> LayerTrace:
    """The trace with other choices: the first `upgraded` tokens of each sequence."""
    first = trace.inputs.positions < upgraded
    return replace(trace, plan=replace(trace.plan, mask=torch.stack((~first, first), dim=-1)))


def test_steps_of_the_last_part_count_and_the_one_before_it() -> None:
    routers, (one, two, three) = traces()
    choices = Choices(routers)
    assert choices.shares == []
    for upgraded, progress in ((24, 0.1), (12, LAST - 0.01), (6, LAST), (0, 0.99)):
        seen = [chosen(trace, upgraded + place) for place, trace in enumerate((one, two, three))]
        choices.note(seen, 72, progress)
    for place, shares in enumerate(choices.shares):
        wanted = (12 + 6 + 0 + 3 * place) / (3 * 24)
        assert shares == pytest.approx([1 - wanted, wanted])
    again = Choices(routers)
    again.load_state_dict(choices.state_dict())
    assert again.shares == choices.shares


def test_counts_of_a_checkpoint_join_those_of_the_device() -> None:
    routers, seen = traces()
    choices = Choices(routers)
    choices.note(seen, 72, LAST)
    there = [
        replace(trace, plan=replace(trace.plan, mask=trace.plan.mask.to("meta"))) for trace in seen
    ]
    choices.note(there, 72, LAST)
    assert {taken.device.type for taken in choices.taken if taken is not None} == {"meta"}


def test_a_path_that_runs_without_being_chosen_does_not_count() -> None:
    routers, seen = traces(estimator="straight_through", estimator_options={"dense": True})
    assert all(router.trains_dense for router in routers)
    choices = Choices(routers)
    choices.note(seen, 72, 1.0)
    for router, shares in zip(routers, choices.shares, strict=True):
        assert shares[1] == round(24 * router.spec.capacity) / 24
    routers, seen = traces(estimator="relaxed")
    choices = Choices(routers)
    choices.note(seen, 72, 1.0)
    assert choices.shares == [[], [], []]


def test_training_says_the_shares_it_ended_at() -> None:
    found = model("mlp_gate")
    done = fit(found, 20)
    capacity = found.solution.capacity
    for shares in done.shares:
        assert shares == pytest.approx([1 - capacity, capacity], abs=0.5 / 24 + 1e-9)


def test_tokens_outside_of_a_block_choose_nothing() -> None:
    _, (trace, *_) = traces("mod", layers="every")
    assert isinstance(trace.inputs, RouterInput)
    assert trace.inputs.valid is None
