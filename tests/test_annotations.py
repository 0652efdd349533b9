"""The tests' own net: without it no other test notices a wrong shape."""

import os

import pytest
import torch

from bench.routing.capacity import tokens_kept, top_k_mask
from bench.routing.contract import RoutingPlan

pytestmark = pytest.mark.skipif(
    os.environ.get("TOKEN_ROUTING_BENCH_CHECK_SHAPES") == "0",
    reason="shapes are not checked in this run",
)


def test_shapes_of_functions_and_dataclasses_are_executed() -> None:
    mask = torch.zeros(2, 3, 2, dtype=torch.bool)
    RoutingPlan(mask, weight=torch.zeros(2, 3, 2))
    with pytest.raises(TypeError, match="weight"):
        RoutingPlan(mask, weight=torch.zeros(2, 4, 2))
    with pytest.raises(TypeError, match="scores"):
        top_k_mask(torch.zeros(2, 3, 4), 1)


def test_an_int_serves_as_a_float_but_a_string_does_not() -> None:
    assert tokens_kept(1, 8) == 8
    with pytest.raises(TypeError, match="capacity"):
        tokens_kept("1", 8)  # pyright: ignore[reportArgumentType]
