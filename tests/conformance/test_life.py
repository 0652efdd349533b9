"""Traces of a short life, and digests by content."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from bench.conformance.life import content_digest, live
from bench.flops.counter import UncountedOp
from bench.model.assemble import Model
from tests.world import model


def gate() -> Model:
    return model("mlp_gate")


def test_a_digest_is_of_content_type_and_shape() -> None:
    a = torch.arange(6.0)
    assert (
        content_digest(a)
        == content_digest(a.clone())
        == content_digest(torch.stack((a, a), 1)[:, 0])
    )
    others = [a - 1e-6, a.view(2, 3), a.double(), a.numpy(), a.tolist(), {"a": a}]
    assert len({content_digest(one) for one in (a, *others)}) == 7
    assert (
        content_digest({"a": [a, 1]})
        == content_digest({"a": [a.clone(), 1]})
        != content_digest({"a": [a, 2]})
    )


@pytest.mark.parametrize(
    ("draw", "name"), [(lambda: torch.rand(1), "torch"), (lambda: np.random.rand(), "NumPy")]
)
def test_a_draw_from_a_global_generator_is_named(draw: Callable[[], object], name: str) -> None:
    def run(_: Model) -> None:
        draw()

    with torch.random.fork_rng(devices=[]):
        found = live(gate, run)
    assert (found.drawn_from, found.changed, found.error) == ([name], [], None)


def test_a_generator_of_ones_own_is_not_named() -> None:
    def run(_: Model) -> None:
        np.random.default_rng(0).random()
        torch.rand(1, generator=torch.Generator())

    assert live(gate, run).drawn_from == []


def test_attributes_that_no_state_dict_saves_are_named_with_their_layer() -> None:
    def change(made: Model) -> None:
        vars(made.decoder.routers[1])["steps"] = 3
        for parameter in made.decoder.parameters():
            parameter.data.add_(1)

    assert live(gate, change).changed == ["layer 2: self.steps"]


def test_an_error_ends_a_life_and_an_operation_without_a_price_is_found_behind_it() -> None:
    unpriced = UncountedOp("made up")

    def fail(_: Model) -> None:
        raise RuntimeError("outer") from unpriced

    found = live(gate, fail)
    assert isinstance(found.error, RuntimeError) and found.uncounted is unpriced
    assert live(gate, lambda _: None).uncounted is None
