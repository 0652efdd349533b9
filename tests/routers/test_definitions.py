"""Each shipped router against its definition, token by token."""

import math
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from bench.errors import UserError
from bench.rng import generator
from bench.routing.contract import LayerTrace, Router, RouterInput, RoutingPlan, Selection
from bench.routing.registry import find
from tests.small import CONFIG, model, row_id, tokens

BATCH, SEQ = 3, 24


def built(name: str, options: dict[str, Any] | None = None) -> Router:
    """The router of the first routed layer."""
    return model(name, options).decoder.routers[0]


def inputs(selection: Selection = "topk", ids: Tensor | None = None, seed: int = 0) -> RouterInput:
    ids = tokens(BATCH, SEQ) if ids is None else ids
    hidden = torch.randn(*ids.shape, CONFIG.d_model, generator=generator(seed, "hidden"))
    positions = torch.arange(ids.shape[1]).expand(ids.shape)
    return RouterInput(
        hidden, ids, positions, None, None, generator(seed, "routing"), 0.5, selection
    )


@torch.no_grad()
def plan(router: Router, seen: RouterInput) -> RoutingPlan:
    return router(seen)


def softmax(row: list[float]) -> list[float]:
    exponentials = [math.exp(value) for value in row]
    return [value / sum(exponentials) for value in exponentials]


def rows(*tensors: Tensor | None) -> list[tuple[list[float], ...]]:
    """Token by token."""
    assert all(tensor is not None for tensor in tensors)
    return list(
        zip(
            *(tensor.flatten(0, 1).tolist() for tensor in tensors if tensor is not None),
            strict=True,
        )
    )


@pytest.mark.parametrize("renormalise", [True, False])
def test_top2_takes_the_two_most_probable(renormalise: bool) -> None:
    router = built("top2_moe", {"renormalise": renormalise})
    seen = inputs()
    found = plan(router, seen)
    logits = seen.hidden @ router.logits.weight.detach().T
    for mask, weight, scores in rows(found.mask, found.weight, logits):
        p = softmax(scores)
        best = sorted(range(8), key=lambda e: -p[e])[:2]
        assert [e for e in range(8) if mask[e]] == sorted(best)
        total = sum(p[e] for e in best) if renormalise else 1.0
        assert weight == pytest.approx(
            [p[e] / total if e in best else 0 for e in range(8)], abs=1e-6
        )


@pytest.mark.parametrize("threshold", [0.0, 0.02, 0.1, 1.0])
def test_adaptive_takes_the_second_where_the_first_leads_by_no_more_than_t(
    threshold: float,
) -> None:
    router = built("adaptive_moe", {"threshold": "fixed", "initial_threshold": threshold})
    seen = inputs()
    logits = seen.hidden @ router.logits.weight.detach().T
    for selection in ("topk", "causal"):
        found = plan(router, inputs(selection))
        for mask, weight, scores in rows(found.mask, found.weight, logits):
            p = softmax(scores)
            first, second = sorted(range(8), key=lambda e: -p[e])[:2]
            if abs(p[first] - p[second] - threshold) < 1e-6:
                continue
            chosen = {first, second} if p[first] - p[second] <= threshold else {first}
            assert {e for e in range(8) if mask[e]} == chosen
            assert weight == pytest.approx([p[e] if e in chosen else 0 for e in range(8)], abs=1e-6)


def test_adaptive_counts_as_many_experts_as_it_promises_once_controlled() -> None:
    found = model("adaptive_moe")
    router = found.decoder.routers[0]
    taken: list[float] = []
    for step in range(150):
        seen = inputs(seed=step % 7)
        trace = LayerTrace(1, router.paths, seen, plan(router, seen), seen.hidden, {})
        router.after_step(trace)
        taken.append(trace.plan.mask.sum(-1).float().mean().item())
    assert sum(taken[-70:]) / 70 == pytest.approx(1.2, abs=0.03)
    assert taken[0] > 1.5  # it had something to do


def test_the_balance_of_adaptive_counts_single_tokens_alone() -> None:
    assert (
        built("adaptive_moe").aux_losses["load_balance"].compute.__name__ == "load_balance_single"
    )
    assert built("top2_moe").aux_losses["load_balance"].compute.__name__ == "load_balance"


def test_mod_weighs_the_whole_update_by_its_score() -> None:
    router = built("mod")
    seen = inputs()
    found = plan(router, seen)
    scores = (seen.hidden @ router.score.weight.detach().T).squeeze(-1)
    count = round(router.spec.capacity * SEQ)
    for b in range(BATCH):
        best = sorted(range(SEQ), key=lambda t: -scores[b, t].item())[:count]
        assert sorted(best) == found.mask[b, :, 1].nonzero().flatten().tolist()
    assert found.weight is not None
    torch.testing.assert_close(found.weight[..., 1], scores)
    assert torch.equal(found.mask[..., 0], ~found.mask[..., 1])


@pytest.mark.parametrize("scale", ["both", "full"])
def test_the_gate_is_a_perceptron_that_scales_the_outputs(scale: str) -> None:
    router = built("mlp_gate", {"scale": scale})
    seen = inputs()
    found = plan(router, seen)
    assert found.scores is not None
    assert found.weight is not None
    hidden = seen.hidden @ router.hidden.weight.detach().T + router.hidden.bias.detach()
    gelu = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    scores = (gelu @ router.score.weight.detach().T + router.score.bias.detach()).squeeze(-1)
    torch.testing.assert_close(found.scores[..., 1], scores)
    p = 1 / (1 + (-scores).exp())
    torch.testing.assert_close(found.weight[..., 1], p)
    torch.testing.assert_close(
        found.weight[..., 0], 1 - p if scale == "both" else torch.ones_like(p)
    )
    assert found.mask[..., 1].sum(1).tolist() == [round(router.spec.capacity * SEQ)] * BATCH


def test_hash_gives_each_token_id_one_expert_for_ever() -> None:
    router = built("hash")
    ids = torch.arange(CONFIG.vocab_size).repeat(4).view(4, -1)
    everywhere = plan(router, inputs(ids=ids)).mask
    assert (everywhere.sum(-1) == 1).all()
    assert all(torch.equal(everywhere[0], row) for row in everywhere)
    turned = plan(router, inputs("causal", ids.flip(1), seed=3)).mask
    assert torch.equal(turned.flip(1), everywhere)
    assert len(set(everywhere[0].int().argmax(-1).tolist())) > 4
    other = model("hash", seed=1).decoder.routers[0]
    assert not torch.equal(plan(other, inputs(ids=ids)).mask, everywhere)


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


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("top2_moe", {"num_experts": 1}, "at least 2"),
        ("adaptive_moe", {"mean_experts": 2.5}, r"\[1, 2\]"),
        ("adaptive_moe", {"threshold": "free"}, "'controlled', 'fixed'"),
        ("mod", {"layers": "third"}, "'every', 'other'"),
        ("mlp_gate", {"width_ratio": 0}, "above 0"),
        ("mlp_gate", {"scale": "none"}, "'both', 'full'"),
        ("random", {"over": "heads"}, "'ffn', 'block', 'experts'"),
        ("random", {"active_experts": 9}, "1 to num_experts"),
        ("hash", {"num_experts": 0}, "at least 2"),
        ("mod", {"centrre": 1.0}, "Did you mean 'centre'"),
    ],
    ids=row_id,
)
def test_an_option_out_of_range_is_the_users_error(
    name: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        find(name).make(options)
