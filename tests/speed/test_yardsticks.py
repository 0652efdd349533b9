"""Other expert layers compute the same as ours, and rates are those written out."""

import pytest
import torch

from bench.backbone.presets import decoder_config
from bench.speed import yardsticks
from bench.speed.yardsticks import expert_layers, peaks, rates, transformers_experts
from tests.libraries import library
from tests.world import CONFIG

CPU = torch.device("cpu")


@pytest.mark.parametrize("implementation", yardsticks.TRANSFORMERS.values())
def test_the_experts_of_transformers_are_ours(implementation: str):
    library("transformers")
    bank = yardsticks._bank(16, 8, 4)
    block = transformers_experts(bank, implementation)
    assert block is not None
    x = torch.randn(20, 16, generator=torch.Generator().manual_seed(0))
    index, weight = torch.tensor([[0, 3]]).expand(20, 2), torch.tensor([[0.7, 0.3]]).expand(20, 2)
    expected = 0.7 * bank(x, 0) + 0.3 * bank(x, 3)
    assert torch.allclose(block(x, index, weight), expected, atol=1e-5)


def test_the_loop_over_experts_weighs_each_token_by_its_experts():
    bank = yardsticks._bank(16, 8, 4)
    x = torch.randn(1, 20, 16, generator=torch.Generator().manual_seed(0))
    weight = torch.rand(1, 20, 4, generator=torch.Generator().manual_seed(1))
    mask = weight > 0.5
    every = torch.stack([bank(x[0], expert) for expert in range(4)], dim=1)
    expected = (every * (weight * mask)[0].unsqueeze(2)).sum(1)
    assert torch.allclose(yardsticks._loop(x, mask, weight, bank), expected, atol=1e-5)


def test_layers_and_peaks_are_named_and_positive():
    found = [*expert_layers(CONFIG, 64, torch.float32, 1, CPU), *peaks(1, CPU)]
    names = [one.name for one in found]
    assert {"dispatch of this bench", "loop over experts", "matrix products, float32"} <= {*names}
    assert yardsticks.DENSE not in names and all(one.value > 0 for one in found)
    assert decoder_config("tiny", 10, 8).ffn_width % yardsticks.ACTIVE == 0


def test_both_implementations_of_transformers_are_timed():
    library("transformers")
    names = {one.name for one in expert_layers(CONFIG, 64, torch.float32, 1, CPU)}
    assert {"experts of Transformers", "experts of Transformers, grouped"} <= names


def test_rates_are_those_of_the_time():
    speed, share, overhead = rates(milliseconds=50.0, flops=2e9, plain_ratio=0.8, peak=100.0)
    assert (speed.value, speed.unit) == (pytest.approx(40.0), "GFLOP/s")
    assert share.value == pytest.approx(0.4) and overhead.value == pytest.approx(1.25)
