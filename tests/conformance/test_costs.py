"""The costs of a router: the knob, the budget and operations without a price."""

import torch

from bench.conformance.check import CheckResult, examine_one
from bench.conformance.costs import budget_is_met, every_operation_is_priced, knob_raises_spending
from bench.conformance.life import Life
from bench.conformance.subject import Subject
from bench.flops.counter import UncountedOp
from bench.routing.capacity import gate_plan
from bench.routing.contract import Router, RouterInput, RouterSpec, RoutingPlan
from bench.routing.load_routers import find
from bench.routing.paths import FFN_GATE
from bench.routing.registry import Entry


class Threshold(Router):
    """Upgrades tokens by their position: rising with the knob, or falling, or whatever it says."""

    paths = FFN_GATE
    sign = 1.0

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.register_buffer("knob", torch.zeros(()))

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        assert self.knob is not None
        score = inputs.positions / inputs.positions.shape[1] - 0.5
        return gate_plan(score + self.sign * self.knob > 0, None)


class Falling(Threshold):
    sign = -1.0


class Idle(Threshold):
    sign = 0.0


def spending(router: type[Router]) -> CheckResult:
    return examine_one(knob_raises_spending, Subject(Entry("made-up", "gate", "", router)), {})


def test_spending_rises_with_the_knob_or_the_fault_is_said() -> None:
    assert spending(Threshold).status == "passed"
    falling, idle = spending(Falling), spending(Idle)
    assert (falling.status, falling.expected) == ("failed", "spending that rises with the knob")
    assert (idle.status, idle.expected) == ("failed", "a knob that changes spending")
    seen = [float(word) for word in falling.seen.strip("[]").split(", ")]
    assert len(seen) == 7 and seen == sorted(seen, reverse=True) and seen[0] > seen[-1]


def test_what_has_no_knob_or_ignores_the_budget_is_exempt() -> None:
    rule = examine_one(knob_raises_spending, Subject(find("hash")), {})
    assert (rule.status, rule.reason) == ("exempt", "the router has no knob")
    bound = examine_one(budget_is_met, Subject(find("dense")), {})
    assert (bound.status, bound.reason) == ("exempt", "a bracket ignores the budget")


def test_an_operation_without_a_price_fails_and_another_error_does_not() -> None:
    for kind, status in ((UncountedOp, "failed"), (KeyError, "passed")):
        try:
            raise kind("fft has no price")
        except kind as raised:
            error = raised
        subject = Subject(find("mlp_gate"))
        vars(subject)["life"] = Life(error, [], [])
        found = examine_one(every_operation_is_priced, subject, {})
        assert found.status == status
        assert ("fft has no price" in found.seen) == (status == "failed")


def test_a_block_in_layer_0_meets_the_budget_in_the_mean_over_texts() -> None:
    """Seed 7 alone is 1.15 % off: a threshold there moves all tokens of an id at once."""
    assert examine_one(budget_is_met, Subject(find("mod"), seed=7), {}).status == "passed"
