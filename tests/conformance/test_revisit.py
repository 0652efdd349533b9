"""Settings of the sweep, looked at again.

A router that behaves at B and peeks beside it is caught.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bench.conformance.revisit import Visited, knobs_of, revisit
from bench.evaluation.evaluate import evaluate
from bench.routing.contract import FFN_GATE, Router, RouterInput, RouterSpec, RoutingPlan
from bench.routing.registry import Entry
from bench.routing.select import gate_plan, hash_noise, upgrade
from tests import world


class _Gate(Router):
    """A hash above the knob; where `peeks` says so the next token has a word."""

    paths = FFN_GATE
    peeks: Callable[[Tensor], bool] = staticmethod(lambda _: False)

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.enable_knob()

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        scores = hash_noise(self.spec, inputs)
        assert self.knob is not None
        if inputs.selection == "causal" and self.peeks(self.knob):
            scores = scores.roll(-1, 1)
        return gate_plan(*upgrade(scores, inputs, self.spec, self.knob), scores)


class _Weighing(_Gate):
    """Chooses by the hash alone; where `peeks` says so the next token sets the weight."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        assert self.knob is not None
        scores = hash_noise(self.spec, inputs)
        seen = (
            scores.roll(-1, 1) if inputs.selection == "causal" and self.peeks(self.knob) else scores
        )
        chosen, count = upgrade(scores, inputs, self.spec, self.knob)
        return gate_plan(chosen, count, scores, (1 + seen, 1 + seen))


def offence(
    peeks: Callable[[Tensor], bool],
    at: tuple[float, ...] = (-0.6, -0.4, -0.5),
    kind: type[Router] = _Gate,
) -> str:
    model = world.model(Entry("gate", "test", "", kind))
    routers = model.decoder.routers
    visited: list[Visited] = []
    with torch.no_grad():
        for (
            parameter
        ) in model.decoder.parameters():  # zero-initialised outputs would make all paths alike
            parameter.add_(
                0.3
                * torch.randn(
                    parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())
                )
            )
    for router in routers:
        assert isinstance(router, _Gate)
        router.peeks = peeks  # type: ignore[method-assign]
    for value in at:
        for router in routers:
            assert router.knob is not None
            router.knob.fill_(value)
        found = evaluate(model, world.windows(), batch_size=8)
        visited.append(Visited(knobs_of(model), found.nats))
    said = revisit(model, world.windows(), visited, 8, torch.float32)
    assert all(router.knob is not None and float(router.knob) == at[-1] for router in routers)
    return said


def test_an_honest_router_comes_out_again() -> None:
    assert offence(lambda _: False) == ""


def test_looking_ahead_beside_the_budget_is_found() -> None:
    assert "depend on what stands later" in offence(lambda knob: float(knob) < -0.55)


def test_weighing_by_the_next_token_beside_the_budget_is_found_though_no_plan_moves() -> None:
    assert offence(lambda _: False, kind=_Weighing) == ""
    assert "depend on what stands later" in offence(
        lambda knob: float(knob) < -0.55, kind=_Weighing
    )


def test_looking_ahead_in_all_evaluations_but_the_last_is_found() -> None:
    calls: list[int] = []

    def early(_: Tensor) -> bool:
        calls.append(1)
        return len(calls) <= 2 * 3  # two evaluations of one batch, three routers

    assert "do not come out again" in offence(early)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_pass_is_that_of_the_evaluation(dtype: torch.dtype) -> None:
    model = world.model(Entry("gate", "test", "", _Gate))
    found = evaluate(model, world.windows(), batch_size=8, dtype=dtype)
    assert (
        revisit(
            model,
            world.windows(),
            [Visited([None] * len(model.decoder.routers), found.nats)],
            8,
            dtype,
        )
        == ""
    )
