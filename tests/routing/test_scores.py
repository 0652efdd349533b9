"""Noise of evaluation is a function of seed, layer, position and token alone.

The recipe's noise, dropout and bias are tested in tests/model/test_router_noise.py.
"""

import torch

from bench.routing.contract import RouterInput
from bench.routing.scores import hash_noise
from tests.routing.router_inputs import inputs, spec


def test_hash_noise_is_the_same_in_any_batch_length_and_order_of_paths() -> None:
    whole = inputs(3, 12, "causal")
    noise = hash_noise(spec(), whole)
    part = RouterInput(
        whole.hidden[1:, :5],
        whole.tokens[1:, :5],
        whole.positions[1:, :5],
        None,
        None,
        None,
        0.0,
        "causal",
    )
    assert torch.equal(hash_noise(spec(), part), noise[1:, :5])
    assert not torch.equal(hash_noise(spec(layer=2), whole), noise)
    assert not torch.equal(hash_noise(spec(seed=10), whole), noise)
    each = hash_noise(spec(), whole, torch.arange(4))
    assert each.shape == (3, 12, 4)
    assert torch.equal(hash_noise(spec(), whole, torch.arange(2)), each[..., :2])
