"""The plans of routers that break the contract, each fault with its place."""

import inspect
from collections import Counter
from dataclasses import replace

import torch

from bench.conformance.check import Check, CheckResult, examine_one
from bench.conformance.plans import (
    counts_match_mask,
    every_token_has_a_path,
    place_of,
    plan_is_well_formed,
    plans_of,
)
from bench.conformance.subject import Subject
from bench.routing.capacity import gate_plan
from bench.routing.contract import Router, RouterInput, RoutingPlan
from bench.routing.load_routers import find
from bench.routing.paths import FFN_GATE, experts
from bench.routing.registry import Entry


class Plain(Router):
    """Upgrades every other token."""

    paths = FFN_GATE

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        return gate_plan(inputs.positions % 2 == 0, None)


class Miscounts(Plain):
    def forward(self, inputs: RouterInput) -> RoutingPlan:
        return replace(super().forward(inputs), counts=(1, 31))


class OnePathShort(Plain):
    def forward(self, inputs: RouterInput) -> RoutingPlan:
        return RoutingPlan(super().forward(inputs).mask[..., :1])


class NoNumber(Plain):
    def forward(self, inputs: RouterInput) -> RoutingPlan:
        plan = super().forward(inputs)
        return replace(plan, scores=torch.full(plan.mask.shape, torch.nan))


class KeepsShared(Router):
    """Sends every token to an expert of its own, and all to the shared one."""

    paths, mean_experts = experts(2, shared=1), 2.0

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        first = inputs.positions % 2 == 0
        return RoutingPlan(torch.stack((torch.ones_like(first), first, ~first), -1))


class ForgetsShared(KeepsShared):
    def forward(self, inputs: RouterInput) -> RoutingPlan:
        mask = super().forward(inputs).mask
        mask[:, 3, 0] = False
        return RoutingPlan(mask)


def examine(check: Check, router: type[Router]) -> CheckResult:
    return examine_one(check, subject(router), {})


def subject(router: type[Router]) -> Subject:
    return Subject(Entry("made-up", "gate", "", router))


def test_every_layer_is_asked_in_training_and_in_evaluation() -> None:
    asked = [(router.spec.layer, inputs) for router, inputs, _ in plans_of(subject(Plain))]
    assert Counter((layer, inputs.selection) for layer, inputs in asked) == {
        (layer, selection): 1 for layer in range(3) for selection in ("topk", "causal")
    }
    for layer, inputs in asked:
        before = inputs.previous
        assert (before.layer if before else None) == (layer - 1 if layer else None)
        assert (inputs.generator is None) == (inputs.selection == "causal")


def test_a_place_is_the_line_of_the_routers_own_forward() -> None:
    line = inspect.getsourcelines(Miscounts.forward)[1]
    assert place_of(Miscounts()) == f"Miscounts.forward (test_plans.py:{line})"


def test_shapes_and_numbers_of_a_plan_are_those_of_the_contract() -> None:
    assert examine(plan_is_well_formed, Plain).status == "passed"
    short, number = (examine(plan_is_well_formed, one) for one in (OnePathShort, NoNumber))
    assert short.status == "failed" and "(8, 32, 1)" in short.seen
    assert "OnePathShort.forward (test_plans.py:" in short.expected
    assert number.status == "failed" and number.seen == "nan or infinity"
    assert number.expected.startswith("finite scores from NoNumber.forward")


def test_counts_that_the_mask_denies_are_found() -> None:
    assert examine(counts_match_mask, Plain).status == "passed"
    assert examine(counts_match_mask, Miscounts).status == "failed"
    assert examine_one(counts_match_mask, Subject(find("mlp_gate")), {}).status == "passed"


def test_a_path_that_every_token_takes_is_missed_where_one_does_not() -> None:
    assert examine(every_token_has_a_path, KeepsShared).status == "passed"
    found = examine(every_token_has_a_path, ForgetsShared)
    assert found.status == "failed"
    assert "'expert_shared0', which is in `always`" in found.expected
    assert found.seen == "8 tokens without"
