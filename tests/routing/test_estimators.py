"""Gradient estimators against their definitions, and the random ones against the exact gradient of
a problem that can be enumerated.
"""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bench.rng import generator
from bench.routing.estimators import (
    EstimatorOptions,
    credit,
    dselect_k,
    gumbel,
    highest,
    relaxed,
    sample,
    scale,
    smooth_step,
    soft,
    st_gumbel,
    straight_through,
)

PATHS, TOKENS, DRAWS = 3, 2, 40_000
LOGITS = torch.tensor([[0.3, -0.4, 0.6], [-0.2, 0.5, 0.1]])
OUTPUTS = torch.tensor([[1.0, -0.5, 0.2], [0.3, 0.8, -1.0]])


def loss(weight: Tensor) -> Tensor:
    """A loss in which the tokens' choices matter to each other, `[..., token, path]` -> `[...]`.

    `(1 - sum of outputs)^2`.
    """
    return (1 - (weight * OUTPUTS).sum((-1, -2))).square()


def exact_gradient(logits: Tensor = LOGITS) -> Tensor:
    """Gradient of the expected loss, by going through every joint choice."""
    logits = logits.clone().requires_grad_()
    p = logits.softmax(-1)
    total = torch.zeros(())
    for choice in itertools.product(range(PATHS), repeat=TOKENS):
        weight = F.one_hot(torch.tensor(choice), PATHS).float()
        total = total + math.prod(p[t, c] for t, c in enumerate(choice)) * loss(weight)
    return torch.autograd.grad(total, logits)[0]


def deviations(draws: Tensor) -> Tensor:
    """Distance of the mean of draws to the exact gradient, in standard errors."""
    return (draws.mean(0) - exact_gradient()).abs() / (draws.std(0) / len(draws) ** 0.5)


def test_reinforce_is_unbiased_and_a_baseline_only_quietens_it() -> None:
    logits = LOGITS.expand(DRAWS, TOKENS, PATHS).clone().requires_grad_()
    chosen = sample(logits.detach(), generator(0, "sample"))
    found = loss(chosen.float())
    gradients: list[Tensor] = []
    for baseline in (0.0, float(found.mean())):
        log_p = (logits.log_softmax(-1) * chosen).sum((-1, -2))
        gradients.append(torch.autograd.grad((log_p * (found - baseline)).sum(), logits)[0])
        assert deviations(gradients[-1]).max() < 4
    plain, quiet = (each.var(0).sum() for each in gradients)
    assert quiet < 0.7 * plain


def st_gumbel_draws(temperature: float) -> Tensor:
    logits = LOGITS.expand(DRAWS, TOKENS, PATHS).clone().requires_grad_()
    perturbed = logits + gumbel(logits, generator(1, "gumbel"))
    mask, weight = st_gumbel(perturbed, highest(perturbed), temperature, dense=True)
    assert mask.all()
    assert weight is not None
    assert torch.equal(weight.detach().round(decimals=4), highest(perturbed).float())
    return torch.autograd.grad(loss(weight).sum(), logits)[0]


def test_st_gumbel_is_biased_and_trades_bias_for_variance_by_its_temperature() -> None:
    hot, cold = st_gumbel_draws(10.0), st_gumbel_draws(0.5)
    exact = exact_gradient()
    assert deviations(hot).max() > 10
    assert deviations(cold).max() > 10
    assert hot.var(0).sum() < cold.var(0).sum()
    cosine = [
        F.cosine_similarity(each.mean(0).flatten(), exact.flatten(), dim=0) for each in (hot, cold)
    ]
    assert min(cosine) > 0.8  # biased, but downhill


def test_sampling_follows_the_softmax() -> None:
    chosen = sample(LOGITS.expand(DRAWS, TOKENS, PATHS), generator(2, "sample"))
    assert chosen.sum(-1).eq(1).all()
    assert torch.allclose(chosen.float().mean(0), LOGITS.softmax(-1), atol=4 * 0.5 / DRAWS**0.5)


def test_soft_and_relaxed_have_the_gradient_of_the_mixture() -> None:
    for temperature in (1.0, 0.3):
        ours, definition = LOGITS.clone().requires_grad_(), LOGITS.clone().requires_grad_()
        mask, weight = relaxed(ours, temperature)
        assert weight is not None
        assert mask.all()
        exponentials = (definition / temperature).exp()
        expected = torch.autograd.grad(
            loss(exponentials / exponentials.sum(-1, keepdim=True)), definition
        )[0]
        assert torch.allclose(torch.autograd.grad(loss(weight), ours)[0], expected, atol=1e-6)
    p = LOGITS.softmax(-1)
    assert torch.equal(soft(p)[1], p)  # type: ignore[arg-type]


def test_relaxation_ends_at_the_hard_choice() -> None:
    _, weight = relaxed(LOGITS, 0.01)
    assert weight is not None
    assert torch.allclose(weight, highest(LOGITS).float(), atol=1e-4)


def test_straight_through_is_hard_forward_and_soft_backward() -> None:
    for dense in (True, False):
        logits = LOGITS.clone().requires_grad_()
        p = logits.softmax(-1)
        chosen = highest(logits.detach())
        mask, weight = straight_through(p, chosen, dense)
        assert weight is not None
        assert torch.equal(mask, torch.ones_like(chosen) if dense else chosen)
        executed = weight * mask
        assert torch.allclose(executed, chosen.float(), atol=1e-6)
        slope = torch.autograd.grad(loss(executed), executed, retain_graph=True)[0]
        ours = torch.autograd.grad(executed, logits, slope)[0]
        heard = (
            slope if dense else slope * chosen
        )  # the loss of paths that did not run has no effect
        q = p.detach()
        assert torch.allclose(ours, q * (heard - (q * heard).sum(-1, keepdim=True)), atol=1e-6)


def test_chosen_paths_are_scaled_by_probability() -> None:
    p = LOGITS.softmax(-1)
    mask, weight = scale(p, highest(p))
    assert mask.tolist() == [[False, False, True], [False, True, False]]
    assert weight is p
    assert scale(p, ~mask)[0].sum() == TOKENS * (PATHS - 1)


def test_dselect_k_weighs_each_path_by_the_bits_of_its_number() -> None:
    bits = torch.tensor([[-0.2, 0.1, 0.4], [0.6, -0.7, 0.0]])
    found = dselect_k(bits, 8)
    for row, activations in zip(found.tolist(), bits.tolist(), strict=True):
        for path, value in enumerate(row):
            factors = [float(smooth_step(torch.tensor(a))) for a in activations]
            assert value == pytest.approx(
                math.prod(s if path >> i & 1 else 1 - s for i, s in enumerate(factors)), abs=1e-6
            )


@given(st.integers(2, 17), st.integers(0, 50))
def test_dselect_k_is_a_distribution_whatever_the_number_of_paths(count: int, seed: int) -> None:
    bits = torch.randn(5, math.ceil(math.log2(count)), generator=generator(seed, "bits"))
    found = dselect_k(bits, count)
    assert found.shape == (5, count)
    assert (found >= 0).all()
    assert torch.allclose(found.sum(-1), torch.ones(5), atol=1e-5)


def test_smooth_step_is_the_cubic_of_the_paper() -> None:
    for gamma in (1.0, 2.5):
        for x in (-3.0, -gamma / 2, -0.3, 0.0, 0.2, gamma / 2, 3.0):
            expected = (
                0.0
                if x <= -gamma / 2
                else 1.0
                if x >= gamma / 2
                else -2 / gamma**3 * x**3 + 3 / (2 * gamma) * x + 0.5
            )
            assert float(smooth_step(torch.tensor(x), gamma)) == pytest.approx(expected, abs=1e-6)


def test_credit_is_the_mean_of_what_follows() -> None:
    losses = torch.tensor([[1.0, 2.0, 6.0], [0.0, 4.0, 2.0]])
    assert credit(losses, "following").tolist() == [[3.0, 4.0, 6.0], [2.0, 3.0, 2.0]]
    assert credit(losses, "own") is losses


def test_temperature_falls_by_equal_factors() -> None:
    options = EstimatorOptions.read({"temperature": [8, 0.5]}, "relaxed")
    assert [
        options.temperature_at("relaxed", progress) for progress in (0, 0.25, 0.5, 1)
    ] == pytest.approx([8, 4, 2, 0.5])
    assert EstimatorOptions().temperature_at("st_gumbel", 0.0) == 10
    assert EstimatorOptions().temperature_at("st_gumbel", 1.0) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("estimator", "given_options", "said"),
    [
        ("relaxed", {"heat": 1}, "heat"),
        ("relaxed", [1], r"estimator_options is \[1\]; allowed is a mapping"),
        *(
            ("relaxed", {"temperature": value}, "two numbers above 0")
            for value in ([1], [1, 0], [1, -1], 3.0, "10", ["hot", "cold"])
        ),
        ("reinforce", {"credit": "all"}, "credit is 'all'"),
        ("st_gumbel", {"dense": "no"}, "dense is 'no'; allowed are true, false"),
        ("scale", {"dense": True}, "dense True, which is of straight_through and st_gumbel alone"),
        ("straight_through", {"temperature": [2, 1]}, "of relaxed and st_gumbel alone"),
        ("relaxed", {"credit": "own"}, "credit 'own', which is of reinforce alone"),
    ],
)
def test_options_that_are_not_allowed_are_refused_in_one_line(
    estimator: str, given_options: object, said: str
) -> None:
    with pytest.raises(ValueError, match=said) as error:
        EstimatorOptions.read(given_options, estimator)
    assert "\n" not in str(error.value)


def test_an_option_that_is_none_is_left_at_its_default() -> None:
    given_options = {"dense": None, "temperature": None, "credit": None}
    assert EstimatorOptions.read(given_options, "scale") == EstimatorOptions()
    assert EstimatorOptions.read(None, "scale") == EstimatorOptions()
