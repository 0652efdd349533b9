"""The plan of a gate under each estimator, and each router of the family against its definition."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.errors import UserError
from bench.rng import generator
from bench.routing.contract import OracleRequest, Router, RouterInput, RoutingPlan
from bench.routing.learned_gate import Gate
from bench.routing.load_routers import find
from tests.routers.asking import inputs
from tests.world import CONFIG, model, tokens

BATCH, SEQ = 3, 24
OTHERS = ("relaxed", "straight_through", "st_gumbel", "reinforce", "soft")


def built(name: str = "mlp_gate", **options: Any) -> Gate:
    router = model(name, options).decoder.routers[0]
    assert isinstance(router, Gate)
    return router


def scores_of(plan: RoutingPlan) -> Tensor:
    assert plan.scores is not None
    return plan.scores[..., 1]


def weights_of(plan: RoutingPlan) -> Tensor:
    """Factor on each path that runs, 0 on the others."""
    return plan.mask.float() if plan.weight is None else plan.weight.where(plan.mask, 0.0)


@pytest.mark.parametrize("estimator", OTHERS[:-1])
def test_evaluation_is_hard_by_the_knob(estimator: str) -> None:
    router = built(estimator=estimator)
    assert router.knob is not None
    router.knob.fill_(0.1)
    plan = router(inputs("causal"))
    assert torch.equal(plan.mask[..., 1], scores_of(plan) > -0.1)
    assert torch.equal(weights_of(plan), F.one_hot(plan.mask[..., 1].long(), 2).float())


@pytest.mark.parametrize("estimator", ["scale", "straight_through", "st_gumbel"])
def test_training_keeps_the_capacity_where_a_fixed_number_is_chosen(estimator: str) -> None:
    router = built(estimator=estimator)
    plan = router(inputs())
    count = round(router.spec.capacity * SEQ)
    assert not router.trains_dense
    assert plan.counts == (SEQ - count, count)
    assert plan.mask[..., 1].sum(1).tolist() == [count] * BATCH


@pytest.mark.parametrize("estimator", ["straight_through", "st_gumbel"])
def test_dense_straight_through_runs_both_and_keeps_what_was_chosen(estimator: str) -> None:
    router = built(estimator=estimator, estimator_options={"dense": True})
    plan = router(inputs())
    assert router.trains_dense
    assert plan.mask.all()
    assert plan.counts == (SEQ, SEQ)
    chosen = weights_of(plan).round(decimals=4)
    assert chosen.unique().tolist() == [0, 1]
    assert chosen[..., 1].sum(1).tolist() == [round(router.spec.capacity * SEQ)] * BATCH


def test_st_gumbel_chooses_by_noisy_scores_and_straight_through_by_plain_ones() -> None:
    plain, noisy = (
        built(estimator=estimator)(inputs()) for estimator in ("straight_through", "st_gumbel")
    )
    assert torch.equal(scores_of(plain), scores_of(noisy))
    count = int(weights_of(plain)[0, :, 1].round().sum())
    for row, weight in zip(scores_of(plain), weights_of(plain)[..., 1].round(), strict=True):
        assert set(row.topk(count).indices.tolist()) == set(weight.nonzero().flatten().tolist())
    assert not torch.equal(weights_of(plain).round(), weights_of(noisy).round())


def test_relaxed_mixes_both_and_hardens() -> None:
    router = built(estimator="relaxed")
    for progress, temperature in ((0.0, 1.0), (1.0, 0.1)):
        plan = router(inputs(progress=progress))
        assert plan.mask.all()
        p = (scores_of(plan) / temperature).sigmoid()
        assert torch.allclose(weights_of(plan), torch.stack((1 - p, p), -1), atol=1e-6)


def test_reinforce_samples_by_probability() -> None:
    router = built(estimator="reinforce")
    ids = tokens(400, SEQ)
    hidden = torch.randn(1, 1, CONFIG.d_model, generator=generator(0, "hidden")).expand(
        *ids.shape, -1
    )
    plan = router(RouterInput(hidden, ids, ids, None, None, generator(0, "routing"), 0.5, "topk"))
    assert plan.weight is None
    assert plan.mask.sum(-1).eq(1).all()
    assert float(plan.mask[..., 1].float().mean()) == pytest.approx(
        float(scores_of(plan).detach().sigmoid().mean()), abs=0.02
    )


def test_soft_runs_both_always_and_has_nothing_to_calibrate() -> None:
    router = built(estimator="soft")
    assert router.knob is None
    for selection in ("topk", "causal"):
        plan = router(inputs(selection))
        assert plan.mask.all()
        assert torch.allclose(weights_of(plan)[..., 1], scores_of(plan).sigmoid())


@pytest.mark.parametrize("name", ["mlp_gate", "jepa_gate"])
def test_what_a_gate_asks_of_the_harness_follows_from_its_options(name: str) -> None:
    def made(**options: Any) -> Router:
        return find(name).make(options)

    assert made().needs == frozenset()
    assert made(utility=0.1).needs == {"utility"}
    assert made(rank=0.1, estimator="reinforce").needs == {"utility", "token_loss"}
    assert made(oracle="on_policy", flip_fraction=0.5).oracle == OracleRequest("on_policy", 0.5)
    weights = {
        name: loss.weight
        for name, loss in made(estimator="relaxed", utility=0.1).aux_losses.items()
        if loss.weight
    }
    assert weights == {"utility": 0.1, "budget": 10.0} | (
        {"jepa": 1.0} if name == "jepa_gate" else {}
    )


@pytest.mark.parametrize(
    "options",
    [
        {"estimator": "magic"},
        {"scale": "none"},
        {"estimator": "relaxed", "scale": "full"},
        {"oracle": "any"},
        {"flip_fraction": 0},
        {"estimator_options": {"heat": 1}},
    ],
)
def test_options_that_are_not_allowed_are_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=str(next(iter(options.values())))[:4].strip("{'")):
        find("mlp_gate").make(options)
