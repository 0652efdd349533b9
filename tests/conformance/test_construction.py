"""How a router comes into being: each fault is named, and a sound router passes."""

import torch
from torch import nn

from bench.conformance.check import examine_one
from bench.conformance.construction import builds_without_arguments, same_seed_same_weights
from bench.conformance.subject import Subject
from bench.routing.contract import Router, RouterSpec
from bench.routing.load_routers import find
from bench.routing.registry import Entry
from bench.runner.rows import unmet_needs
from routers.gates import MLPGate

NOISE = torch.Generator()


class Loose(MLPGate):
    def __init__(self, depth: int, **rest: float) -> None:
        super().__init__()


class Strange(MLPGate):
    layers = "some"  # pyright: ignore[reportAssignmentType]


class Needy(MLPGate):
    needs = frozenset({"probe"})


class Impure(MLPGate):
    """Takes a weight from a generator that the harness does not seed."""

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.shift = nn.Parameter(torch.rand(3, generator=NOISE))


def subject(router: type[Router]) -> Subject:
    return Subject(Entry("made-up", "gate", "", router))


def test_options_without_a_default_and_unknown_layers_are_named() -> None:
    loose = examine_one(builds_without_arguments, subject(Loose), {})
    assert loose.status == "failed" and loose.seen == "options without a default: depth, rest"
    strange = examine_one(builds_without_arguments, subject(Strange), {})
    assert strange.status == "failed" and "layers" in strange.expected + strange.seen
    assert examine_one(builds_without_arguments, Subject(find("mlp_gate")), {}).status == "passed"


def test_a_need_that_no_run_provides_is_named() -> None:
    found = examine_one(builds_without_arguments, subject(Needy), {})
    assert found.status == "failed" and found.seen == "['probe']"
    card = Entry("made-up", "gate", "", Needy).describe({})
    assert "it needs probe" in unmet_needs(card, num_domains=2)


def test_weights_that_another_model_of_the_seed_does_not_have_are_named() -> None:
    impure = examine_one(same_seed_same_weights, subject(Impure), {})
    assert impure.status == "failed"
    assert impure.seen == "different ones in " + ", ".join(
        f"layers.{layer}.ffn_router.shift" for layer in range(3)
    )
    assert examine_one(same_seed_same_weights, Subject(find("mlp_gate")), {}).status == "passed"
