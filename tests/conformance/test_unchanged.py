"""A module that learns while held-out text is read is named."""

import pytest
import torch

from bench.conformance.unchanged import state_sums, unchanged
from bench.errors import RuleBroken
from tests.world import model


def test_a_buffer_that_moves_is_named_and_knobs_may() -> None:
    decoder = model("mlp_gate").decoder
    with unchanged(decoder, "A probe"):
        for router in decoder.routers:
            assert router.knob is not None
            router.knob.add_(1)
    decoder.routers[1].register_buffer("table", torch.zeros(3), persistent=False)
    with (
        pytest.raises(
            RuleBroken,
            match=r"A probe changed layers\.\d\.ffn_router\.table; "
            "evaluation may change nothing but knobs",
        ),
        unchanged(decoder, "A probe"),
    ):
        decoder.routers[1].get_buffer("table")[2] = 1


def test_swapped_signs_show_though_squares_do_not() -> None:
    decoder = model("mlp_gate").decoder
    before = state_sums(decoder)
    with torch.no_grad():
        decoder.embedding.weight.neg_()
    assert {name for name, sums in state_sums(decoder).items() if sums != before[name]} == {
        "embedding.weight"
    }
