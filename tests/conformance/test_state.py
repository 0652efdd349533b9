"""The state of a router: digests of its plans, and traces of its life."""

import torch

from bench.conformance.check import examine_one
from bench.conformance.life import Life
from bench.conformance.state import (
    deterministic,
    inputs_are_left_alone,
    no_hidden_state,
    plan_digest,
)
from bench.conformance.subject import Subject
from bench.routing.capacity import gate_plan
from bench.routing.contract import Router, RouterInput, RoutingPlan
from bench.routing.load_routers import find
from bench.routing.paths import FFN_GATE
from bench.routing.registry import Entry


class Scribbles(Router):
    """Writes to the positions that it is shown."""

    paths = FFN_GATE

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        inputs.tokens[0, 0] += 1
        return gate_plan(inputs.positions % 2 == 0, None)


def test_a_digest_of_a_plan_changes_with_the_plan_alone() -> None:
    subject = Subject(find("mlp_gate"))
    router, inputs = subject.model.decoder.routers[0], subject.inputs("causal")[0]
    before = plan_digest(router, inputs)
    torch.rand(3)
    assert plan_digest(router, inputs) == before
    assert router.knob is not None
    router.knob.fill_(1e6)
    assert plan_digest(router, inputs) != before


def test_what_a_life_left_is_named_by_the_check_that_answers_for_it() -> None:
    for check, life, seen in (
        (deterministic, Life(None, ["NumPy"], []), "that of NumPy changed"),
        (
            no_hidden_state,
            Life(None, [], ["layer 1: self.steps"]),
            "changes in layer 1: self.steps",
        ),
    ):
        subject = Subject(find("mlp_gate"))
        vars(subject)["life"] = life
        found = examine_one(check, subject, {})
        assert (found.status, found.seen) == ("failed", seen)
    vars(subject)["life"] = Life(None, [], [])
    assert examine_one(no_hidden_state, subject, {}).status == "passed"


def test_an_input_that_was_written_to_is_named() -> None:
    for entry, status in (
        (Entry("made-up", "gate", "", Scribbles), "failed"),
        (find("mlp_gate"), "passed"),
    ):
        subject = Subject(entry)
        vars(subject)["trained"] = subject.model  # the written place does not depend on training
        found = examine_one(inputs_are_left_alone, subject, {})
        assert found.status == status
        assert ("tokens" in found.seen) == (status == "failed")
