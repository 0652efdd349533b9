"""Draws by name: prefixes agree, the hash is uniform and knows nothing but its integers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bench.rng import generator, hash_uniform, key, normal


def murmur_finaliser(x: int) -> int:
    """fmix32 of MurmurHash3, from its definition."""
    x ^= x >> 16
    x = x * 0x85EBCA6B % 2**32
    x ^= x >> 13
    x = x * 0xC2B2AE35 % 2**32
    return x ^ (x >> 16)


def test_fewer_rows_are_the_first_rows_of_more() -> None:
    long = normal(3, "ffn.gate", 40, 16)
    assert torch.equal(normal(3, "ffn.gate", 7, 16), long[:7])
    assert not torch.equal(normal(4, "ffn.gate", 40, 16), long)
    assert not torch.equal(normal(3, "ffn.up", 40, 16), long)


def test_draws_are_standard_normal() -> None:
    assert stats.kstest(normal(0, "x", 100, 200).flatten().numpy(), "norm").pvalue > 1e-3


def test_no_draw_touches_global_state() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1]
    normal(0, "a", 4, 4)
    generator(0, "b")
    hash_uniform(0, torch.arange(4))
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)


def test_keys_differ_by_every_part() -> None:
    assert (
        len(
            {
                key(seed, *names)
                for seed in range(3)
                for names in [("a",), ("b",), ("a", 1), ("a", 2), (1, "a")]
            }
        )
        == 15
    )


def test_the_hash_is_two_rounds_of_the_finaliser() -> None:
    state = murmur_finaliser((key(7, "hash") % 2**32 ^ (3 + 0x9E3779B9)) % 2**32)
    state = murmur_finaliser((state ^ (41 + 0x9E3779B9)) % 2**32)
    assert hash_uniform(7, 3, torch.tensor([41])).item() == (state >> 8) / 2**24


def test_the_hash_is_uniform_over_positions_and_tokens() -> None:
    found = hash_uniform(1, 2, torch.arange(200).unsqueeze(1), torch.arange(100).unsqueeze(0))
    assert found.shape == (200, 100)
    assert stats.kstest(found.flatten().numpy(), "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(found[:-1].flatten().numpy(), found[1:].flatten().numpy())[0, 1]) < 0.03
    assert found.min() >= 0
    assert found.max() < 1


@given(st.integers(0, 2**62), st.integers(0, 2**31), st.integers(0, 2**31))
def test_the_hash_of_a_number_is_that_of_a_tensor(seed: int, first: int, second: int) -> None:
    one = hash_uniform(seed, first, torch.tensor([second]))
    other = hash_uniform(seed, torch.tensor([[first]]), second)
    assert one.item() == other.item() == hash_uniform(seed, first, second).item()


def test_generators_are_streams_of_their_own() -> None:
    draws = {
        torch.rand((), generator=generator(seed, name)).item()
        for seed in range(3)
        for name in ("a", "b")
    }
    assert len(draws) == 6
    assert torch.rand((), generator=generator(1, "a")).item() == pytest.approx(
        torch.rand((), generator=generator(1, "a")).item(), abs=0
    )
