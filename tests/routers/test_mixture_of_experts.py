"""Routers to experts against their definitions, token by token."""

import math
from dataclasses import replace
from statistics import mean, pstdev

import pytest
import torch
from torch import Tensor

from bench.config.row import RouterTraining
from bench.model.router_noise import TrainingNoise
from bench.routing.contract import LayerTrace, TrainStatistics
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


def test_a_bias_moves_the_choice_of_adaptive_and_not_its_confidence() -> None:
    """The gap is that of the router's own probabilities, whichever experts the bias picks."""
    router = built("adaptive_moe", {"threshold": "fixed", "initial_threshold": 0.02})
    seen = inputs()

    noise = TrainingNoise(RouterTraining(balance_bias=0.001), CONFIG.d_model, 8, True, 1)
    assert noise.bias is not None
    noise.bias[:2] = torch.tensor([1.0, 0.5])
    found = plan(router, replace(seen, noise=noise))
    logits = seen.hidden @ router.logits.weight.detach().T
    counts = set[int]()
    for mask, scores in rows(found.mask, logits):
        first, second = sorted(softmax(scores))[-1:-3:-1]
        if abs(first - second - 0.02) > 1e-6:
            assert [e for e in range(8) if mask[e]] == ([0, 1] if first - second <= 0.02 else [0])
            counts.add(sum(mask))
    assert counts == {1, 2}


def test_a_single_expert_of_adaptive_keeps_a_gradient_when_weights_are_renormalised() -> None:
    router = built("adaptive_moe", {"renormalise": True, "threshold": "fixed"})
    router.threshold.zero_()
    found = router(inputs())
    assert found.mask.sum(-1).eq(1).all()
    (gradient,) = torch.autograd.grad(found.weight.square().sum(), router.logits.weight)
    assert gradient.norm() > 1e-3


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


@pytest.mark.parametrize(("assignment", "most"), [("balanced", 0.15), ("random", 1.0)])
def test_a_balanced_hash_deals_the_commonest_ids_to_the_emptiest_expert(
    assignment: str, most: float
) -> None:
    """Hash Layers, section 3.1; the naive reference deals one id after the other."""
    router = built("hash", {"assignment": assignment})
    counts = [1000 // (rank + 1) for rank in range(CONFIG.vocab_size)]
    counts = counts[::2] + counts[1::2]  # not in the order of the ids
    before = router.expert.clone()
    router.fit(TrainStatistics(torch.tensor(counts)))
    loads = [0] * 8
    for token, path in enumerate(router.expert.tolist()):
        loads[path] += counts[token]
    if assignment == "random":
        assert torch.equal(router.expert, before)
        return
    naive = [0] * 8
    for count in sorted(counts, reverse=True):
        naive[naive.index(min(naive))] += count
    assert sorted(loads) == sorted(naive)
    rest = loads.copy()
    rest.remove(max(rest))  # the commonest id fills an expert alone
    assert pstdev(rest) / mean(rest) < most


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
