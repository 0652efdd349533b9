"""Hash layers: a fixed expert for each token id, balanced by the text."""

from dataclasses import replace
from statistics import mean, pstdev

import pytest
import torch

from bench.flops.counter import count
from bench.routing.contract import TrainStatistics
from routers.hash import Hash
from tests.routers.asking import built, inputs, plan
from tests.world import CONFIG, fit, model


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
    for tokens in sorted(counts, reverse=True):
        naive[naive.index(min(naive))] += tokens
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


@pytest.mark.parametrize(("hashed", "count"), [("none", 0), ("first", 1), ("half", 2), ("all", 3)])
def test_the_first_layers_hash_and_the_others_learn(hashed: str, count: int) -> None:
    """Of three routed layers the middle one belongs to the first half."""
    found = model("hash", {"hashed": hashed})
    routers = found.decoder.routers
    before = [[p.clone() for p in router.parameters()] for router in routers]
    learns = [bool(parameters) for parameters in before]
    assert learns == [False] * count + [True] * (3 - count)
    assert [bool(losses) for losses in found.losses] == learns
    fit(found, 2)
    for router, parameters in zip(routers, before, strict=True):
        assert all(
            not torch.equal(p, was) for p, was in zip(router.parameters(), parameters, strict=True)
        )


def test_a_layer_that_learns_is_that_of_switch() -> None:
    learned = model("hash", {"hashed": "first"}).decoder.routers[2]
    switch = model("top1_moe").decoder.routers[2]
    found, expected = plan(learned, inputs()), plan(switch, inputs())
    assert torch.equal(found.mask, expected.mask)
    assert found.weight is not None and expected.weight is not None
    assert torch.equal(found.weight, expected.weight)


def test_a_table_of_any_vocabulary_is_balanced_under_the_counter() -> None:
    """A loop over ids may take no number out of torch, where it would be computed unseen."""
    router = Hash()
    ids = 1000
    router.build(replace(built("hash").spec, vocab_size=ids))
    assert count(lambda: router.fit(TrainStatistics(torch.arange(ids)))).total > 0
    loads = torch.zeros(8).scatter_add_(0, router.expert, torch.arange(ids).float())
    assert (loads.max() - loads.min()) / loads.mean() < 0.01
