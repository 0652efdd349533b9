"""Norm, rotary positions and attention against formulas written out."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from bench.backbone.decoder import Decoder, DecoderConfig
from bench.backbone.layers import Attention, Rotary, fused_attention, rms_norm
from bench.rng import generator, normal
from bench.training.optim import muon_parameters

D_MODEL, HEADS, SEQ = 16, 2, 7
CONFIG = DecoderConfig(
    vocab_size=8, d_model=16, num_layers=2, num_heads=2, ffn_width=32, cheap_rank=2, max_seq_len=8
)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed, "noise"))


def attention(qk_gain: bool = False) -> Attention:
    module = Attention(D_MODEL, HEADS, max_seq_len=64, qk_gain=qk_gain)
    module.reset(lambda name, rows, columns: normal(0, name, rows, columns))
    if module.query_gain is not None and module.key_gain is not None:
        module.query_gain.data.copy_(noise(D_MODEL // HEADS, seed=2))
        module.key_gain.data.copy_(noise(D_MODEL // HEADS, seed=3))
    module.out.data.copy_(noise(D_MODEL, D_MODEL))
    return module


def rotated(vector: Tensor, position: int) -> Tensor:
    """Rotate neighbouring channels one pair at a time, with sines and cosines."""
    out = vector.clone()
    for pair in range(len(vector) // 2):
        angle = position * 10_000.0 ** (-2 * pair / len(vector))
        x, y = float(vector[2 * pair]), float(vector[2 * pair + 1])
        out[2 * pair] = x * math.cos(angle) - y * math.sin(angle)
        out[2 * pair + 1] = x * math.sin(angle) + y * math.cos(angle)
    return out


@torch.no_grad()
def naive_attention(module: Attention, x: Tensor, positions: Tensor, allowed: Tensor) -> Tensor:
    """One query, key and head at a time, float64."""
    size = D_MODEL // HEADS
    ones = torch.ones(size)
    gain_q = ones if module.query_gain is None else module.query_gain.double()
    gain_k = ones if module.key_gain is None else module.key_gain.double()
    out = torch.zeros(*x.shape, dtype=torch.float64)
    for b, sequence in enumerate(x.double()):
        query, key, value = (sequence @ matrix.double().T for matrix in module.qkv)
        for head in range(HEADS):
            part = slice(head * size, (head + 1) * size)
            for i in range(len(sequence)):
                q = rotated(unit(query[i, part]) * gain_q, int(positions[b, i]))
                seen = [j for j in range(len(sequence)) if allowed[b, i, j]]
                scores = torch.stack(
                    [q @ rotated(unit(key[j, part]) * gain_k, int(positions[b, j])) for j in seen]
                )
                out[b, i, part] = (scores / math.sqrt(size)).softmax(0) @ value[seen][:, part]
    return out @ module.out.double().T


def unit(x: Tensor) -> Tensor:
    return x / (x.square().mean() + torch.finfo(torch.float32).eps).sqrt()


def test_rms_norm_is_torchs_own_without_a_gain() -> None:
    x = noise(3, 5, D_MODEL)
    torch.testing.assert_close(rms_norm(x), nn.RMSNorm(D_MODEL, elementwise_affine=False)(x))
    torch.testing.assert_close(rms_norm(x).square().mean(-1), torch.ones(3, 5))


def test_rotary_turns_each_pair_by_its_angle() -> None:
    x, positions = noise(1, SEQ, 1, 8), torch.tensor([[0, 1, 2, 5, 11, 30, 63]])
    found = Rotary(8, 64)(x, positions)
    wanted = torch.stack([rotated(x[0, i, 0], int(positions[0, i])) for i in range(SEQ)])
    torch.testing.assert_close(found[0, :, 0], wanted)


def test_rotary_products_depend_on_distance_alone() -> None:
    rotary, query, key = Rotary(8, 64), noise(1, 1, 1, 8), noise(1, 1, 1, 8, seed=1)

    def product(i: int, j: int) -> float:
        return float((rotary(query, torch.tensor([[i]])) * rotary(key, torch.tensor([[j]]))).sum())

    assert product(9, 4) == pytest.approx(product(50, 45), abs=1e-5)
    assert abs(product(9, 4) - product(9, 5)) > 1e-3


@pytest.mark.parametrize("qk_gain", [False, True], ids=["no gain", "gain"])
@pytest.mark.parametrize("gathered", [False, True], ids=["all", "gathered"])
def test_attention_is_the_naive_sum(gathered: bool, qk_gain: bool) -> None:
    module, x = attention(qk_gain), noise(2, SEQ, D_MODEL)
    positions = (
        torch.tensor([[0, 3, 4, 9, 20, 21, 40], [1, 2, 3, 4, 5, 6, 63]])
        if gathered
        else torch.arange(SEQ).expand(2, SEQ)
    )
    causal = torch.ones(2, SEQ, SEQ, dtype=torch.bool).tril()
    torch.testing.assert_close(
        module(x, positions),
        naive_attention(module, x, positions, causal).float(),
        rtol=1e-4,
        atol=1e-5,
    )


def test_attention_under_a_mask_is_the_naive_sum() -> None:
    module, x, positions = attention(), noise(2, SEQ, D_MODEL), torch.arange(SEQ).expand(2, SEQ)
    allowed = (noise(2, SEQ, SEQ) > 0).tril() | torch.eye(SEQ, dtype=torch.bool)
    torch.testing.assert_close(
        module(x, positions, allowed),
        naive_attention(module, x, positions, allowed).float(),
        rtol=1e-4,
        atol=1e-5,
    )


def test_attention_starts_silent_and_takes_an_empty_sequence() -> None:
    module = Attention(D_MODEL, HEADS, max_seq_len=64)
    module.reset(lambda name, rows, columns: normal(0, name, rows, columns))
    assert not module(noise(1, SEQ, D_MODEL), torch.arange(SEQ).unsqueeze(0)).any()
    assert module(noise(2, 0, D_MODEL), torch.zeros(2, 0, dtype=torch.long)).shape == (
        2,
        0,
        D_MODEL,
    )
    assert module.qkv.std().item() == pytest.approx(D_MODEL**-0.5, rel=0.05)


def test_own_weight_is_the_diagonal_of_the_softmax_and_attention_is_as_before() -> None:
    module, x, positions = (
        attention(),
        noise(2, 5, 16),
        torch.tensor([[0, 1, 2, 3, 4], [3, 4, 6, 7, 9]]),
    )
    out, shown = module.with_weights(x, positions)
    own, received = shown.unbind(-1)
    torch.testing.assert_close(out, module(x, positions), rtol=1e-4, atol=1e-5)
    allowed = torch.eye(5, dtype=torch.bool).expand(2, 5, 5) | noise(2, 5, 5).gt(0).tril()
    torch.testing.assert_close(
        module.with_weights(x, positions, allowed)[0],
        module(x, positions, allowed),
        rtol=1e-4,
        atol=1e-5,
    )
    size, by_hand = 16 // HEADS, torch.zeros(2, 5)
    for b in range(2):
        query, key, _ = (x[b] @ matrix.T for matrix in module.qkv.detach())
        for t in range(5):
            mean = 0.0
            for part in (slice(head * size, (head + 1) * size) for head in range(HEADS)):
                turned = rotated(unit(query[t, part]), int(positions[b, t]))
                scores = torch.stack(
                    [
                        turned @ rotated(unit(key[s, part]), int(positions[b, s])) / size**0.5
                        for s in range(t + 1)
                    ]
                )
                mean += float(scores.softmax(0)[t]) / HEADS
                by_hand[b, : t + 1] += scores.softmax(0) / HEADS
            assert float(own[b, t]) == pytest.approx(mean, rel=1e-4)
    torch.testing.assert_close(received, by_hand, rtol=1e-4, atol=1e-5)
    assert not shown.requires_grad
    valid = torch.tensor([[True] * 4 + [False]] * 2)
    part = module.with_weights(x, positions, valid=valid)[1][..., 1]
    before = module.with_weights(x[:, :4], positions[:, :4])[1][..., 1]
    torch.testing.assert_close(part[:, :4], before)


def test_the_weight_on_itself_does_not_depend_on_what_comes_later() -> None:
    """The column mean of arXiv:2412.20875 does, so routers do not see it."""
    module, x = attention(), noise(1, 8, 16)
    changed = torch.cat((x[:, :5], noise(1, 3, 16, seed=1)), dim=1)
    positions = torch.arange(8).expand(1, 8)

    def column_mean(inputs: Tensor) -> Tensor:
        query, key, _ = module.heads(inputs, positions)
        scores = (query @ key.mT / (16 // HEADS) ** 0.5).masked_fill(
            ~torch.ones(8, 8, dtype=torch.bool).tril(), -torch.inf
        )
        return scores.softmax(-1).mean((1, 2))

    own = [module.with_weights(inputs, positions)[1][..., 0] for inputs in (x, changed)]
    torch.testing.assert_close(own[0][:, :5], own[1][:, :5])
    assert not torch.isclose(column_mean(x)[:, :5], column_mean(changed)[:, :5], atol=1e-3).any()


def test_only_a_gain_lifts_the_bound_on_the_logits_of_attention() -> None:
    """With gains of g, a token's logit for its own key is g^2 times the root of the head's size."""
    module, x = attention(qk_gain=True), noise(1, 1, D_MODEL)
    assert module.query_gain is not None
    assert module.key_gain is not None
    for gain in (1.0, 3.0):
        module.query_gain.data.fill_(gain)
        module.key_gain.data.fill_(gain)
        module.qkv.data[1] = module.qkv.data[0]
        query, key, _ = module.heads(x, torch.zeros(1, 1, dtype=torch.long))
        size = D_MODEL // HEADS
        wanted = torch.full((1, HEADS, 1, 1), gain**2 * size**0.5)
        torch.testing.assert_close(query @ key.mT / size**0.5, wanted, rtol=1e-4, atol=1e-4)


def test_adamw_trains_the_gains() -> None:
    config = replace(CONFIG, qk_gain=True)
    decoder = Decoder(config)
    matrices = {id(p) for p in muon_parameters(decoder, [])}
    gains = [p for name, p in decoder.named_parameters() if name.endswith("_gain")]
    assert len(gains) == 2 * config.num_layers
    assert not matrices & {id(p) for p in gains}


def test_attention_on_a_cpu_computes_in_float32_whatever_the_precision_of_products() -> None:
    query, key, value = (noise(1, HEADS, SEQ, 8, seed=seed).bfloat16() for seed in range(3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = fused_attention(query, key, value, causal=True)
    scores = (query.double() @ key.double().mT) / math.sqrt(8)
    allowed = torch.ones(SEQ, SEQ, dtype=torch.bool).tril()
    exact = scores.masked_fill(~allowed, -math.inf).softmax(-1) @ value.double()
    # The rounding of bfloat16 would move the outputs by 0.004.
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=1e-6)
