"""Relative shares of layers and paths, scaled to the budget."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import UserError
from bench.evaluation.calibrate import calibrate
from bench.evaluation.evaluate import evaluate
from bench.flops.shares import Stated, sites_at, state
from bench.model.assemble import Model
from bench.routing.capacity import gate_plan, upgrade
from bench.routing.contract import Router, RouterInput, RouterSpec, RoutingPlan
from bench.routing.paths import BLOCK_GATE, FFN_GATE, Paths, Site, experts
from bench.routing.registry import Entry
from bench.routing.scores import hash_noise
from tests.world import SEQ_LEN, model, windows

RATIOS = (1.0, 0.75, 0.5)
BESIDE = Paths(Site.FFN, ("expert0", "expert1", "expert2", "skip"))


class Falling(Router):
    """Chance with falling shares."""

    paths, ratios = FFN_GATE, RATIOS

    def relative_share(self, path: str, place: int, count: int) -> float:
        assert count == len(self.ratios)
        return self.ratios[place]

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.enable_knob()

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        return gate_plan(*upgrade(hash_noise(self.spec, inputs), inputs, self.spec, self.knob))


class FallingBlocks(Falling):
    paths = BLOCK_GATE


def made(router: type[Router], **changes: Any) -> Model:
    return model(Entry("made-up", "tests", "", router), **changes)


def spend(found: Model) -> float:
    ledger = found.evaluation_ledger
    sites = zip(ledger.sites, found.solution.shares, strict=True)
    return ledger.fixed + ledger.routers + sum(site.at(each, SEQ_LEN) for site, each in sites)


@pytest.mark.parametrize(("router", "rho"), [(Falling, 0.3), (Falling, 0.6), (FallingBlocks, 0.1)])
def test_one_factor_scales_stated_shares_to_the_budget(router: type[Router], rho: float) -> None:
    found = made(router, budget=rho)
    upgraded = [shares[1] for shares in found.solution.shares]
    assert [share / upgraded[0] for share in upgraded] == pytest.approx(RATIOS)
    assert spend(found) == pytest.approx(found.solution.target, rel=1e-9)
    assert [one.spec.capacity for one in found.decoder.routers] == upgraded
    assert found.solution.capacity == pytest.approx(sum(upgraded) / 3)


def test_a_share_ends_at_one_and_the_others_go_on() -> None:
    found = made(Falling, budget=0.85)
    upgraded = [shares[1] for shares in found.solution.shares]
    assert upgraded[0] == 1.0 and upgraded[1] == pytest.approx(1.5 * upgraded[2])
    assert spend(found) == pytest.approx(found.solution.target, rel=1e-9)


@pytest.mark.parametrize("spent", [0.96, 1.0, 1.04])
def test_calibration_gives_each_layer_the_same_multiple_of_its_own_share(spent: float) -> None:
    found, text = made(Falling), windows(90)
    calibrate(found, text, spent)
    masks = evaluate(found, text, 30, keep=True).masks
    site = found.evaluation_ledger.sites[0]
    for mask, shares in zip(masks.values(), found.solution.shares, strict=True):
        share = mask[..., 1].double().mean().item()
        now, nominal = (site.at((1 - part, part), SEQ_LEN) for part in (share, shares[1]))
        multiple = (spent * found.solution.target - found.evaluation_ledger.fixed) / sum(
            site.at(each, SEQ_LEN) for each in found.solution.shares
        )
        assert now / nominal == pytest.approx(multiple, abs=0.01)


class Unequal(Router):
    """Experts of unequal shares, each with a threshold of its own, more of them in later layers."""

    paths, mean_experts = experts(3), 1.2
    first = 2.0

    def relative_share(self, path: str, place: int, count: int) -> float:
        return (self.first if path == "expert0" else 1.0) * (place + 1)

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.register_buffer("knob", torch.zeros(3))

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        assert self.knob is not None
        scores = hash_noise(self.spec, inputs, torch.arange(3)) - 1
        return RoutingPlan(scores > -self.knob, scores=scores)


def test_a_knob_for_each_path_keeps_the_shares_of_paths() -> None:
    found, text = made(Unequal, routed_layers=(1, 2)), windows(90)
    said = calibrate(found, text, 1.0)
    assert said == pytest.approx(1.0, abs=0.01)
    masks = evaluate(found, text, 30, keep=True).masks
    for place, mask in enumerate(masks.values()):
        wanted = [0.2 * part * (place + 1) for part in (2, 1, 1)]
        assert found.decoder.routers[place].spec.mean_experts == pytest.approx(sum(wanted))
        assert mask.double().mean((0, 1)).tolist() == pytest.approx(wanted, abs=0.02)


class Plain(Router):
    paths = BESIDE
    mean_experts = 0.6


def test_paths_beside_experts_are_not_counted() -> None:
    (layer,) = sites_at(state(Plain(), None, 1, "plain"), 1.0)
    (site,) = layer
    assert sum(site.shares[:3]) == pytest.approx(0.6)
    assert site.mean_experts == 0.6


class Shared(Router):
    """One expert for every token, and half an expert of three, with the cheap path for all."""

    paths = Paths(
        Site.FFN,
        ("expert_all", "expert0", "expert1", "expert2", "cheap"),
        always=("expert_all", "cheap"),
    )
    mean_experts = 1.5

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        return RoutingPlan(torch.ones(*inputs.tokens.shape, 5, dtype=torch.bool))


def test_a_path_that_every_token_takes_has_the_share_1() -> None:
    stated = state(Shared(), None, 2, "shared")
    for (site,) in sites_at(stated, 1.0):
        assert site.shares == pytest.approx((1.0, 1 / 6, 1 / 6, 1 / 6, 1.0))
        assert site.mean_experts == pytest.approx(1.5)
    found = made(Shared)
    assert spend(found) == pytest.approx(found.solution.target, rel=0.01)


@pytest.mark.parametrize(("mean", "said"), [(1.0, "more than 1 and at most all 4"), (4.5, "all 4")])
def test_experts_that_are_chosen_come_on_top_of_the_shared(mean: float, said: str) -> None:
    router = Shared()
    router.mean_experts = mean
    with pytest.raises(UserError, match=said):
        state(router, None, 2, "shared")


@settings(max_examples=50)
@given(st.integers(1, 6), st.floats(0.01, 1.0), st.floats(0.1, 4))
def test_without_a_statement_every_layer_and_expert_has_the_same_share(
    layers: int, factor: float, mean: float
) -> None:
    gate, bank = Router(), Router()
    gate.paths, bank.paths, bank.mean_experts = FFN_GATE, experts(4), mean
    for (site,) in sites_at(state(gate, None, layers, "gate"), factor):
        assert (site.shares, site.capacity) == ((1 - factor, factor), factor)
    for (site,) in sites_at(state(bank, None, layers, "bank"), factor):
        assert (site.shares, site.mean_experts) == ((mean / 4,) * 4, mean)


@pytest.mark.parametrize("share", [-0.1, float("nan"), float("inf"), "much", None])
def test_a_share_that_is_no_number_from_0_is_refused(
    share: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Falling, "ratios", (1.0, share, 0.5))
    with pytest.raises(
        UserError, match=r"Router 'made-up' gives 'cheap' in layer 1 of 3 the relative"
    ):
        made(Falling)


def test_shares_that_leave_nothing_to_train_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Falling, "ratios", (0.0, 0.0, 0.0))
    with pytest.raises(UserError, match="gives full the relative share 0 in every layer"):
        made(Falling)
    monkeypatch.setattr(Falling, "ratios", (1.0, 1.0, 0.01))
    with pytest.raises(UserError, match=r"is left with a capacity of 0\.0"):
        made(Falling)
    monkeypatch.setattr(Falling, "ratios", (1.0, 1.0, 0.0))
    assert [shares[1] > 0 for shares in made(Falling).solution.shares] == [True, True, False]


def test_a_path_takes_a_token_once_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Unequal, "first", 8.0)
    with pytest.raises(UserError, match=r"gives 'expert0' 1\.280 of the tokens in layer 1"):
        made(Unequal, routed_layers=(1, 2))


def test_a_statement_is_plain_data() -> None:
    said = state(Plain(), None, 2, "plain")
    assert said == Stated("plain", BESIDE, 0.6, ((1.0,) * 4,) * 2)
