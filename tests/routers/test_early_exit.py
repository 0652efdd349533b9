"""Early exit against a naive pair of layers: who has left stays out."""

from typing import Any

import pytest
import torch
from torch import Tensor

from bench.errors import UserError
from bench.routing.contract import Selection
from bench.routing.load_routers import find
from tests.routers import naive
from tests.world import fit, model, run_of, tokens


@pytest.mark.parametrize("selection", ["topk", "causal"])
def test_a_block_takes_the_best_of_those_that_took_the_block_before(selection: Selection) -> None:
    found = naive.built("early_exit")
    there: list[Tensor] = []

    def exits(layer: Any, x: Tensor, positions: Tensor) -> Tensor:
        router = layer.block_router
        s = router.score(naive.unit(x)).squeeze(-1)
        count = naive.kept(router.spec.capacity)
        before = there.pop(0) if layer.index == 2 else torch.arange(len(x))
        place = before[naive.taken(s[before], count, router, selection)]
        assert 0 < len(place) < len(before)
        if layer.index == 1:
            there.append(place)
        mine = x[place]
        attended = naive.attended(layer, mine, positions[place])
        ffn = naive.swiglu(layer.ffn, naive.unit(mine + attended))
        return x.index_add(0, place, s[place].sigmoid().unsqueeze(-1) * (attended + ffn))

    naive.agree(found, [1, 2], exits, selection)


@pytest.mark.parametrize("last", [0.25, 1.0])
def test_shares_fall_to_the_last_one_and_no_token_comes_back(last: float) -> None:
    found = model("early_exit", {"last": last})
    shares = [site.capacity for site in found.solution.sites]
    factor = shares[-1] / last
    ratios = [1, (1 + last) / 2, last]
    assert shares == pytest.approx([min(1.0, factor * ratio) for ratio in ratios])
    fit(found, 2)
    for selection in ("topk", "causal"):
        run = run_of(tokens(), selection)
        found.decoder(run)
        first, second, third = (trace.plan.mask[..., 1] for trace in run.traces)
        assert not (second & ~first).any() and not (third & ~second).any()


def test_a_share_outside_0_to_1_is_refused() -> None:
    with pytest.raises(UserError, match="last is 0"):
        find("early_exit").make({"last": 0})
