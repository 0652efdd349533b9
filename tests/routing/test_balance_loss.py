"""The balance loss against naive loops."""

import pytest
import torch
from torch import Tensor

from bench.routing.balance_loss import balance_loss, load_shares
from tests.routing.choices import BATCH, EXPERTS, drawn


def naive_loss(chosen: Tensor, probability: Tensor) -> float:
    """N sum_e f_e P_e of a group of tokens, expert by expert."""
    rows = list(zip(chosen.tolist(), probability.tolist(), strict=True))
    choices = sum(sum(taken) for taken, _ in rows)
    total = 0.0
    for expert in range(EXPERTS):
        share = sum(taken[expert] for taken, _ in rows) / max(choices, 1)
        total += share * sum(p[expert] for _, p in rows) / len(rows)
    return EXPERTS * total


def test_the_loss_of_a_batch_and_of_its_sequences_is_the_naive_one() -> None:
    probability, chosen = drawn()
    whole = balance_loss(load_shares(chosen), probability)
    assert float(whole) == pytest.approx(
        naive_loss(chosen.flatten(0, 1), probability.flatten(0, 1)), abs=1e-6
    )
    found = balance_loss(load_shares(chosen, "sequence"), probability)
    one_by_one = [naive_loss(c, p) for c, p in zip(chosen, probability, strict=True)]
    assert float(found) == pytest.approx(sum(one_by_one) / BATCH, abs=1e-6)
    assert float(found) != pytest.approx(float(whole), abs=1e-4)


def test_a_soft_load_counts_tokens_with_one_expert() -> None:
    probability, chosen = drawn()
    chosen[:, ::2] &= probability[:, ::2] == probability[:, ::2].amax(-1, keepdim=True)
    single = chosen.sum(-1) == 1
    shares = load_shares(chosen, soft=True)
    assert torch.allclose(shares[0], chosen[single].float().mean(0))
    assert load_shares(chosen, "sequence", soft=True).shape == (BATCH, EXPERTS)
    assert load_shares(torch.ones_like(chosen), soft=True).sum() == 0
