"""Mixture-of-Depths of the FFN against a naive layer, and on a frozen backbone."""

from typing import Any

import pytest
import torch
from torch import Tensor

from bench.routing.contract import Selection
from tests.routers import naive
from tests.world import fit, frozen


@pytest.mark.parametrize("selection", ["topk", "causal"])
def test_an_ffn_for_the_best_tokens_scaled_by_its_probability(selection: Selection) -> None:
    found = naive.built("mod_ffn")
    count = naive.kept(found.decoder.routers[0].spec.capacity)

    def layer_of(layer: Any, x: Tensor, positions: Tensor) -> Tensor:
        h = x + naive.attended(layer, x, positions)
        s = layer.ffn_router.score(naive.unit(h)).squeeze(-1)
        place = naive.taken(s, count, layer.ffn_router, selection)
        assert 0 < len(place) < len(x)
        ffn = naive.swiglu(layer.ffn.full, naive.unit(h[place]))
        return h.index_add(0, place, s[place].sigmoid().unsqueeze(-1) * ffn)

    naive.agree(found, [1], layer_of, selection)


@pytest.mark.parametrize("estimator", ["scale", "relaxed"])
def test_on_a_frozen_backbone_its_score_alone_learns(estimator: str) -> None:
    found = frozen("mod_ffn", {"estimator": estimator})
    names = [name for name, p in found.decoder.named_parameters() if p.requires_grad]
    assert names and all(".ffn_router." in name for name in names)
    before = {name: p.clone() for name, p in found.decoder.named_parameters()}
    fit(found, 3)
    for name, p in found.decoder.named_parameters():
        assert torch.equal(before[name], p) == (name not in names), name
