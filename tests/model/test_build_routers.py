"""Routers outside a model: their sizes, their inputs, and their prices."""

from typing import Any

import pytest
import torch

from bench.errors import UserError
from bench.model.assemble import assemble
from bench.model.build_routers import router_prices, sample_input
from bench.routing.capacity import gate_plan
from bench.routing.contract import Router, RouterInput, RoutingPlan
from bench.routing.paths import FFN_GATE, Site
from bench.routing.registry import Entry
from tests.world import CONFIG, blueprint, model


def test_what_a_router_sees_is_what_it_may_see() -> None:
    found = model("mlp_gate").decoder.routers[0]
    assert sample_input(blueprint("mlp_gate"), found).tags is None
    spec = found.spec
    assert (spec.d_model, spec.vocab_size, spec.num_layers, spec.num_domains) == (
        CONFIG.d_model,
        CONFIG.vocab_size,
        CONFIG.num_layers,
        3,
    )


class _Hidden(Router):
    """Works in an operation that has no price."""

    paths = FFN_GATE

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        spectrum: Any = torch.fft.rfft(inputs.hidden)
        return gate_plan(spectrum.real.sum(-1) > 0, None)


def test_a_router_that_cannot_be_priced_is_the_users_error() -> None:
    with pytest.raises(UserError, match=r"Router 'hidden' cannot be priced: .*fft"):
        assemble(blueprint("mlp_gate", entry=Entry("hidden", "tests", "", _Hidden)), 0)


class _Twice(Router):
    """Makes one product in evaluation and two in training."""

    paths = FFN_GATE

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        weight = inputs.hidden.new_ones(inputs.hidden.shape[-1])
        scores = inputs.hidden @ weight
        if inputs.selection == "topk":
            scores = scores + inputs.hidden @ weight
        return gate_plan(scores > 0, None)


def test_training_and_evaluation_are_priced_apart() -> None:
    made = blueprint("mlp_gate", entry=Entry("twice", "tests", "", _Twice))
    prices = router_prices(made, (1,))
    topk, causal = (prices[selection][1, Site.FFN] for selection in ("topk", "causal"))
    # A product of two vectors costs 2 FLOPs per element, and adding its result 1 more.
    product = 2 * CONFIG.d_model
    assert topk - causal == product + 1
    assert product <= causal < 2 * product
