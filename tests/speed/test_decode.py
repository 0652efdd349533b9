"""The measurement of decoding: turns, medians, and the figures next to the speed."""

from itertools import count

import pytest
import torch

from bench.decoding.decode import Decoding
from bench.speed.decode import measure_decode
from tests import world
from tests.decoding.test_decode import made

PROMPT = 5


def test_rows_stand_beside_dense_with_their_caches_and_flops() -> None:
    models = {"dense": made("dense", {}), "mod": made("mod", {}), "smear": made("smear", {})}
    ids = world.tokens(2)
    ticks = count()
    rows = measure_decode(
        models, ids, PROMPT, batches=(1, 3), repeats=2, clock=lambda: float(next(ticks))
    )
    assert [(row.batch, row.row) for row in rows] == [
        (batch, name) for batch in (1, 3) for name in models
    ]
    steps, config = ids.shape[1] - PROMPT, models["dense"].decoder.config
    dense, mod, smear = rows[3:]
    # Each decoding takes one tick.
    assert dense.tokens_per_second == 3 * steps and dense.spread == 0
    whole = config.num_layers * ids.shape[1] * 2 * config.d_model * 4
    assert dense.cache_bytes == whole and 0 < mod.cache_bytes < whole
    assert mod.flops < dense.flops and mod.cache_bytes <= mod.reserved_bytes
    assert mod.router_bytes == 0 < smear.router_bytes


def test_flops_are_the_mean_price_of_the_steps() -> None:
    model, ids = made("mode", {"mode": "staged"}), world.tokens(3)
    decoding, prices = Decoding(model.decoder, ids[:, :PROMPT]), list[float]()
    for place in range(PROMPT, ids.shape[1]):
        decoding.step(ids[:, place])
        prices.append(decoding.price(model.evaluation_ledger))
    (row,) = measure_decode({"mode": model}, ids, PROMPT, batches=(3,), repeats=1)
    assert row.flops == pytest.approx(sum(prices) / len(prices) / 3)
    assert row.cache_bytes == sum(cache.size for cache in decoding.caches) / 3
    assert torch.equal(decoding.tokens, ids)


def test_models_take_turns() -> None:
    order: list[str] = []
    models = {name: made(name, {}) for name in ("dense", "cheap")}
    for name, model in models.items():
        model.decoder.head.register_forward_hook(lambda *_, name=name: order.append(name))
    measure_decode(models, world.tokens(1, 7), 6, batches=(1,), repeats=3)
    # A decoding of one step runs the head twice: once for the prompt.
    assert order == ["dense", "dense", "cheap", "cheap"] * 4
