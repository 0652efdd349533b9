"""Running loads against naive loops, and the published updates of biases."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench.rng import generator
from bench.routing.balance import Balancer, quantile_bias, read_balance, sign_step
from bench.routing.balance_loss import load_shares
from tests.routing.choices import ACTIVE, EXPERTS, drawn


def test_a_run_averages_the_load_of_its_steps() -> None:
    """The third loss uses the mean load of three batches, at any momentum."""
    (rule,) = read_balance({"method": "auxiliary", "scope": "run"})
    balancer = Balancer([rule], EXPERTS, ACTIVE)
    loads = list[Tensor]()
    for seed in range(3):
        probability, chosen = drawn(seed)
        loads.append(load_shares(chosen)[0])
        found = balancer.loss(rule, chosen, probability)
        mean = torch.stack(loads).mean(0)
        assert float(found) == pytest.approx(
            float(EXPERTS * (mean * probability.mean((0, 1))).sum()), abs=1e-5
        )
        balancer.after_step(chosen, chosen, probability)
    (rule,) = read_balance({"method": "auxiliary", "scope": "run", "momentum": 0.0})
    assert torch.equal(rule.newest(torch.tensor(5.0)), torch.tensor(1.0))


def naive_soft(chosen: Tensor) -> list[float]:
    """Shares of the experts in the tokens of a group that take one expert."""
    single = [row for row in chosen.tolist() if sum(row) == 1]
    return [sum(row[e] for row in single) / max(len(single), 1) for e in range(EXPERTS)]


def naive_product(shares: list[float], probability: Tensor) -> float:
    """N sum_e f_e P_e, with the mean probability of all tokens of the group."""
    rows = probability.tolist()
    means = [sum(row[e] for row in rows) / len(rows) for e in range(EXPERTS)]
    return EXPERTS * sum(f * p for f, p in zip(shares, means, strict=True))


@pytest.mark.parametrize("scope", ["sequence", "batch", "run"])
def test_a_soft_balance_of_each_scope_is_its_naive_loop(scope: str) -> None:
    """arXiv:2310.07188, section 3.2, in three steps; in the last, a sequence has no single."""
    (rule,) = read_balance({"method": "soft", "scope": scope})
    balancer, before = Balancer([rule], EXPERTS, ACTIVE), list[list[float]]()
    for seed in range(3):
        probability, chosen = drawn(seed)
        lead = probability == probability.amax(-1, keepdim=True)
        chosen[:, seed::2] &= lead[:, seed::2]
        if seed == 2:
            chosen[0] = drawn(seed)[1][0]
        groups = [(chosen.flatten(0, 1), probability.flatten(0, 1))]
        if scope == "sequence":
            groups = list(zip(chosen, probability, strict=True))
        shares = [naive_soft(taken) for taken, _ in groups]
        if scope == "run":
            # The mean over steps, the present one included.
            before += shares
            shares = [[sum(column) / len(before) for column in zip(*before, strict=True)]]
        losses = [naive_product(f, p) for f, (_, p) in zip(shares, groups, strict=True)]
        found = balancer.loss(rule, chosen, probability)
        assert float(found) == pytest.approx(sum(losses) / len(losses), rel=1e-5)
        balancer.after_step(chosen, chosen, probability)


def test_the_sign_bias_moves_as_algorithm_1_says() -> None:
    """arXiv:2408.15664: b_i += u sign(mean load - load_i), here with its mean taken off."""
    load = torch.tensor([0.5, 0.25, 0.25, 0.0])
    naive = [0.1 * ((x < 0.25) - (x > 0.25)) for x in load.tolist()]
    assert sign_step(load, 0.1).tolist() == pytest.approx(naive)
    uneven = torch.tensor([0.7, 0.1, 0.1, 0.1])
    naive = [0.1 * ((x < 0.25) - (x > 0.25)) for x in uneven.tolist()]
    centred = [step - sum(naive) / 4 for step in naive]
    assert sign_step(uneven, 0.1).tolist() == pytest.approx(centred)
    balancer = Balancer(read_balance({"method": "sign_bias", "rate": 0.1}), EXPERTS, ACTIVE)
    probability, chosen = drawn()
    balancer.after_step(chosen, chosen, probability)
    assert balancer.bias is not None
    assert torch.allclose(balancer.bias, sign_step(chosen.float().mean((0, 1)), 0.1))


def naive_quantile(scores: Tensor, bias: Tensor, count: int) -> list[float]:
    """The bias of each expert, by sorting lists."""
    rows = [list(map(float, row)) for row in scores]
    needs = list[list[float]]()
    for row in rows:
        biased = sorted((s + float(b) for s, b in zip(row, bias, strict=True)), reverse=True)
        needs.append([biased[count] - score for score in row])
    found = list[float]()
    for expert in range(len(rows[0])):
        column = sorted(need[expert] for need in needs)
        place = (len(column) - 1) * count / len(rows[0])
        low = int(place)
        high = min(low + 1, len(column) - 1)
        found.append(column[low] + (place - low) * (column[high] - column[low]))
    mean = sum(found) / len(found)
    return [value - mean for value in found]


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), count=st.integers(1, EXPERTS - 1))
def test_the_quantile_bias_is_the_naive_one(seed: int, count: int) -> None:
    noise = generator(seed, "scores")
    scores = torch.rand(40, EXPERTS, generator=noise)
    bias = torch.randn(EXPERTS, generator=noise) / 10
    assert quantile_bias(scores, bias, count).tolist() == pytest.approx(
        naive_quantile(scores, bias, count), abs=1e-5
    )


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 4))
def test_quantiles_balance_what_they_were_taken_of(seed: int, count: int) -> None:
    """On fixed scores of very unlike experts the load settles near k / E for each."""
    noise = generator(seed, "skewed")
    logits = torch.randn(800, EXPERTS, generator=noise) + 2 * torch.randn(EXPERTS, generator=noise)
    scores, bias = logits.sigmoid(), torch.zeros(EXPERTS)

    def loads() -> Tensor:
        return load_shares(
            torch.zeros_like(scores, dtype=torch.bool)
            .scatter(1, (scores + bias).topk(count).indices, True)
            .unsqueeze(0)
        )[0]

    before = float(loads().max())
    for _ in range(40):
        bias = quantile_bias(scores, bias, count)
    assert before > 1.5 / EXPERTS
    assert float(loads().max()) < 1.25 / EXPERTS


def test_quantiles_of_a_run_are_averaged() -> None:
    (rule,) = read_balance({"method": "quantile", "scope": "run", "momentum": 0.5})
    balancer, alone = Balancer([rule], EXPERTS, ACTIVE), Balancer([rule], EXPERTS, ACTIVE)
    assert balancer.bias is not None and alone.bias is not None
    for seed in range(3):
        probability, chosen = drawn(seed)
        was = balancer.bias.clone()
        new = quantile_bias(probability.flatten(0, 1), was, ACTIVE)
        balancer.after_step(chosen, chosen, probability)
        weight = max(1 / (seed + 1), 0.5)
        assert torch.allclose(balancer.bias, was + weight * (new - was), atol=1e-6)


@pytest.mark.parametrize(
    ("given_option", "said"),
    [
        ("loud", "method 'loud'"),
        (0.01, "balance is 0.01"),
        ([3], "balance has 3; allowed is a method, or a mapping of fields"),
        ({"method": "sign_bias", "weight": 0.1}, "'sign_bias' has weight 0.1"),
        ({"method": "sign_bias", "momentum": 0.5}, "momentum 0.5, which is of auxiliary and"),
        ({"method": "z", "rate": 0.1}, "'z' has rate 0.1, which is of sign_bias alone"),
        ({"method": "quantile", "rate": 0.1}, "'quantile' has rate 0.1"),
        ({"method": "none", "weight": 0.1}, "'none' has weight 0.1"),
        ({"method": "quantile", "momentum": 0.5}, "momentum 0.5 with scope 'batch'; only a run"),
        ({"method": "soft", "scope": "sequence", "momentum": 0.5}, "Add scope: run"),
        ({"scope": "run"}, "method ''"),
        ({"method": "z", "scope": "run"}, "scope 'run'; allowed is batch"),
        ({"method": "quantile", "scope": "sequence"}, "allowed is batch or run"),
        ({"method": "auxiliary", "weigth": 1}, "weigth"),
        ({"method": "auxiliary", "weight": -1}, "weight -1"),
        ({"method": "sign_bias", "rate": "fast"}, "rate 'fast'"),
        ({"method": "auxiliary", "momentum": 2}, "momentum 2"),
        (["sign_bias", "quantile"], "sign_bias or quantile more than once"),
        (["auxiliary", "soft"], "auxiliary or soft more than once"),
    ],
)
def test_a_bad_option_is_refused_in_one_line(given_option: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said) as error:
        read_balance(given_option)
    assert "\n" not in str(error.value)


def test_a_method_alone_stands_for_its_defaults() -> None:
    assert read_balance("auxiliary") == read_balance({"method": "auxiliary"})
    assert [rule.loss_weight for rule in read_balance(["soft", "z", "sign_bias"])] == [
        *(0.01, 0.001, 0.0)
    ]
