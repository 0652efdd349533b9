"""The budget against figures written out by hand for the `tiny` preset."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.backbone.presets import decoder_config
from bench.errors import UserError
from bench.flops.budget import dense_costs
from bench.model.assemble import Model
from bench.routing.contract import Router, RouterInput, RoutingPlan
from bench.routing.paths import experts
from bench.routing.registry import Entry
from tests.world import ROWS, model, row_id

VOCAB, SEQ, ROUTED = 256, 128, (1, 2, 3)
D, LAYERS, FFN, RANK = 64, 4, 256, 8

ATTENTION = 4 * 2 * D * D
"""Four projections, 2mn each."""
PAIR = 2 * 2 * D
"""A score and a weighted value, d multiply-adds each."""
MEAN_PAIRS = SEQ * (SEQ + 1) / 2 / SEQ
FULL, CHEAP = 3 * 2 * D * FFN, 2 * 2 * D * RANK
FIXED = 2 * D * VOCAB + LAYERS * (ATTENTION + PAIR * MEAN_PAIRS) + (LAYERS - len(ROUTED)) * FULL
"""Head, attention everywhere, and the FFN that nobody routes."""

RANKED = [row for row in ROWS if row[0] not in ("dense", "cheap")]


def tiny(name: str, options: Mapping[str, object] | None = None, **changes: Any) -> Model:
    config = decoder_config("tiny", VOCAB, SEQ)
    return model(
        name, options, **({"decoder": config, "routed_layers": ROUTED, "seq_len": SEQ} | changes)
    )


def by_hand(rho: float) -> float:
    return FIXED + len(ROUTED) * (rho * FULL + (1 - rho) * CHEAP)


def spend(found: Model) -> float:
    """FLOPs a token at the solved shares, of the model that came out."""
    ledger = found.evaluation_ledger
    sites = zip(ledger.sites, found.solution.shares, strict=True)
    return ledger.fixed + ledger.routers + sum(site.at(shares, SEQ) for site, shares in sites)


@given(st.floats(0.01, 0.99))
def test_the_budget_is_the_mixture_of_full_and_cheap(rho: float) -> None:
    costs = dense_costs(decoder_config("tiny", VOCAB, SEQ), ROUTED, SEQ)
    assert costs.at(rho) == pytest.approx(by_hand(rho), rel=1e-12)
    assert (costs.full, costs.cheap) == (pytest.approx(by_hand(1)), pytest.approx(by_hand(0)))


@pytest.mark.parametrize(("name", "options"), RANKED, ids=row_id)
def test_every_router_costs_the_budget(name: str, options: Mapping[str, object]) -> None:
    found = tiny(name, options)
    assert found.solution.target == pytest.approx(by_hand(0.5))
    assert spend(found) == pytest.approx(by_hand(0.5), rel=0.01)
    if found.solution.capacity < 1:
        assert spend(found) == pytest.approx(by_hand(0.5), rel=1e-9)
    else:  # half a unit of width away at most
        unit = len(ROUTED) * sum(found.solution.shares[0]) * 6 * D
        assert abs(spend(found) - by_hand(0.5)) <= unit / 2 + 1e-6


@settings(max_examples=15)
@given(st.floats(0.2, 0.9))
def test_the_capacity_of_a_gate_solves_a_linear_equation(rho: float) -> None:
    found = tiny("mlp_gate", budget=rho)
    left = by_hand(rho) - FIXED - found.evaluation_ledger.routers - len(ROUTED) * CHEAP
    assert found.solution.capacity == pytest.approx(left / (len(ROUTED) * (FULL - CHEAP)), abs=1e-9)
    shares = (1 - found.solution.capacity, found.solution.capacity)
    assert found.solution.shares == (shares,) * len(ROUTED)


def test_a_gate_is_priced_by_its_products_and_its_elementwise_work() -> None:
    width = 16
    ledger = tiny("mlp_gate").evaluation_ledger
    products = 2 * D * width + 2 * width
    for site in ledger.sites:
        assert products <= site.router <= products + 4 * width + 16


@settings(max_examples=15)
@given(st.floats(0.2, 0.9))
def test_the_capacity_of_blocks_solves_a_quadratic_equation(rho: float) -> None:
    found = tiny("mod", {"layers": "every"}, budget=rho)
    fixed = 2 * D * VOCAB + ATTENTION + PAIR * MEAN_PAIRS + FULL + found.evaluation_ledger.routers
    # c (A + F) + PAIR * (cT)(cT + 1) / 2T = the rest for each of three blocks
    a, b, c = PAIR * SEQ / 2, ATTENTION + FULL + PAIR / 2, -(by_hand(rho) - fixed) / len(ROUTED)
    assert found.solution.capacity == pytest.approx(
        (-b + (b * b - 4 * a * c) ** 0.5) / (2 * a), abs=1e-9
    )


@settings(max_examples=15)
@given(
    st.floats(0.2, 0.95),
    st.sampled_from(
        [("top2_moe", 2.0), ("adaptive_moe", 1.2), ("hash", 1.0), ("dense_matched", 1.0)]
    ),
)
def test_the_width_of_experts_is_the_nearest_single_unit(
    rho: float, row: tuple[str, float]
) -> None:
    name, mean_experts = row
    found = tiny(name, budget=rho)
    left = (by_hand(rho) - FIXED - found.evaluation_ledger.routers) / len(ROUTED)
    assert abs(found.solution.expert_width - left / (mean_experts * 6 * D)) <= 0.5 + 1e-9


def test_routers_on_every_other_layer_meet_the_same_budget() -> None:
    found = tiny("mod")
    assert found.solution.layers == (1, 3)
    assert spend(found) == pytest.approx(by_hand(0.5))
    assert found.solution.capacity < tiny("mod", {"layers": "every"}).solution.capacity


@pytest.mark.parametrize("name", ["dense", "cheap"])
def test_a_bracket_leaves_the_budget_alone(name: str) -> None:
    found = tiny(name)
    assert found.solution.target == pytest.approx(by_hand(0.5))
    assert found.solution.dense == pytest.approx(by_hand(1))


class _Says(Router):
    """Says how many of its experts a token takes."""

    paths = experts(8)

    def __init__(self, mean: float = 1.0) -> None:
        super().__init__()
        self.mean_experts = mean

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        return RoutingPlan(torch.ones(*inputs.tokens.shape, 8, dtype=torch.bool))


@pytest.mark.parametrize("mean", [-1.0, 0.0, 8.5, float("nan")])
def test_experts_a_token_takes_are_more_than_none_and_at_most_all(mean: float) -> None:
    said = rf"mean_experts {mean!r}; a token takes more than 0 and at most all 8"
    with pytest.raises(UserError, match=said):
        tiny("hash", {"mean": mean}, entry=Entry("says", "tests", "", _Says))


@pytest.mark.parametrize(
    ("name", "options", "rho"),
    [
        ("mlp_gate", {}, 0.001),
        ("mlp_gate", {"width_ratio": 8.0}, 0.3),
        ("top2_moe", {"num_experts": 64}, 0.001),
    ],
    ids=["too small", "too costly a gate", "too many experts"],
)
def test_a_budget_out_of_reach_is_the_users_error(
    name: str, options: Mapping[str, object], rho: float
) -> None:
    with pytest.raises(UserError, match=rf"Router '{name}' cannot meet the budget .*--budget"):
        tiny(name, options, budget=rho)
