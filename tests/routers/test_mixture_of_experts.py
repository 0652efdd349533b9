"""Routers to experts against their definitions, token by token."""

import math

import pytest
import torch
from torch import Tensor

from bench.routing.contract import LayerTrace
from tests.routers.asking import built, inputs, plan
from tests.world import CONFIG, model


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
