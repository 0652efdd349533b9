"""Routers that learn nothing: their choices, and how often each occurs."""

import pytest
import torch
from scipy import stats

from bench.errors import UserError
from bench.routing.contract import Selection
from bench.routing.paths import BLOCK_GATE, experts
from tests.routers.asking import BATCH, SEQ, built, inputs, plan
from tests.world import model, tokens


@pytest.mark.parametrize("over", ["ffn", "block"])
def test_random_upgrades_its_share_and_knows_no_hidden_state(over: str) -> None:
    router = built("random", {"over": over})
    first, second = (plan(router, inputs(seed=seed)).mask for seed in (0, 1))
    share = round(router.spec.capacity * SEQ)
    assert first[..., 1].sum(1).tolist() == second[..., 1].sum(1).tolist() == [share] * BATCH
    assert not torch.equal(first, second)  # fresh noise in training
    assert router.knob is not None
    router.knob.fill_(-0.6)
    again, other = (plan(router, inputs("causal", seed=seed)).mask for seed in (0, 1))
    assert torch.equal(again, other)  # a hash in evaluation
    many = plan(router, inputs("causal", tokens(100, SEQ))).mask[..., 1]
    assert stats.binomtest(int(many.sum()), many.numel(), 0.4).pvalue > 1e-3


@pytest.mark.parametrize("selection", ["topk", "causal"])
def test_random_experts_are_taken_equally_often(selection: Selection) -> None:
    found = plan(built("random", {"over": "experts"}), inputs(selection, tokens(100, SEQ)))
    assert (found.mask.sum(-1) == 2).all()
    assert found.weight is not None
    assert torch.equal(found.weight, found.mask / 2)
    assert stats.chisquare(found.mask.sum((0, 1)).numpy()).pvalue > 1e-3


def test_random_experts_may_stand_beside_shared_ones() -> None:
    alone, beside = (
        built("random", {"over": "experts", "active_experts": 1, "num_shared": count})
        for count in (0, 2)
    )
    one, other = plan(alone, inputs("causal")), plan(beside, inputs("causal"))
    assert one.weight is not None and other.weight is not None
    assert beside.mean_experts == 3
    assert other.mask[..., :2].all() and other.weight[..., :2].eq(1).all()
    assert torch.equal(other.weight[..., 2:].sum(-1), one.weight.sum(-1))


@pytest.mark.parametrize("skip", [False, True])
def test_random_experts_may_be_less_than_one_a_token(skip: bool) -> None:
    few = {"over": "experts", "num_experts": 4, "active_experts": 0.25, "skip": skip}
    router = built("random", few)
    found = plan(router, inputs("causal", tokens(100, SEQ)))
    taken = found.mask[..., :4].sum(-1)
    assert stats.binomtest(int(taken.sum()), taken.numel(), 0.25).pvalue > 1e-3
    assert found.weight is not None and torch.equal(found.weight, found.mask.float())
    assert router.allows_none == (not skip)
    if skip:
        assert torch.equal(found.mask[..., 4], taken == 0)


def test_random_may_skip_an_ffn_and_choose_inside_a_block() -> None:
    assert built("random", {"skip": True}).paths.names == ("skip", "full")
    few = {"over": "block", "inside": "experts", "num_experts": 4, "active_experts": 1}
    inner, outer = model("random", few).decoder.routers[:2]
    assert (inner.paths, inner.mean_experts) == (experts(4), 1)
    assert outer.paths == BLOCK_GATE
    with pytest.raises(UserError, match="inside is 'ffn' and over 'ffn'"):
        built("random", {"inside": "ffn"})
