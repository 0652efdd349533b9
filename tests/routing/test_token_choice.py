"""The base of token-choice routers against its definition, token by token."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.backbone.presets import decoder_config
from bench.routing.contract import LayerTrace, RouterSpec
from bench.routing.token_choice import ThresholdChoice, TokenChoice
from tests.routers.asking import inputs, plan
from tests.world import CONFIG, model, run_of, tokens


def made(**options: Any) -> TokenChoice:
    """A built router, outside of any decoder."""
    torch.manual_seed(0)
    router = TokenChoice(**{"num_experts": 8, "active": 2, **options})
    router.build(spec_of(router))
    return router


def spec_of(router: TokenChoice) -> RouterSpec:
    width, vocab = CONFIG.d_model, CONFIG.vocab_size
    return RouterSpec(width, router.paths, 1.0, router.mean_experts, 1, 4, vocab, 32, 3, 0)


def traced(router: TokenChoice, seed: int = 0, shift: float = 0.0) -> LayerTrace:
    seen = inputs(seed=seed)
    seen = replace(seen, hidden=seen.hidden + shift)
    return LayerTrace(1, router.paths, seen, router(seen), seen.hidden, {})


def affinities(row: list[float], scores: str) -> list[float]:
    if scores == "sigmoid":
        return [1 / (1 + math.exp(-value)) for value in row]
    total = sum(map(math.exp, row))
    return [math.exp(value) / total for value in row]


@pytest.mark.parametrize("granularity", [1, 2])
@pytest.mark.parametrize("num_shared", [0, 2])
@pytest.mark.parametrize("renormalise", [True, False])
@pytest.mark.parametrize("scores", ["softmax", "sigmoid"])
def test_a_token_takes_its_best_experts_and_the_shared_ones(
    scores: str, renormalise: bool, num_shared: int, granularity: int
) -> None:
    options = {"scores": scores, "renormalise": renormalise, "num_shared": num_shared}
    router = made(**options, granularity=granularity)
    count, active = 8 * granularity, 2 * granularity
    assert len(router.paths.names) == count + num_shared
    assert router.paths.always == router.paths.names[:num_shared]
    assert router.mean_experts == active + num_shared
    seen = inputs()
    found = plan(router, seen)
    assert found.weight is not None
    logits = seen.hidden @ router.logits.weight.detach().T
    for mask, weight, row in zip(
        found.mask.flatten(0, 1).tolist(),
        found.weight.flatten(0, 1).tolist(),
        logits.flatten(0, 1).tolist(),
        strict=True,
    ):
        s = affinities(row, scores)
        best = set(sorted(range(count), key=lambda e: -s[e])[:active])
        total = sum(s[e] for e in best) if renormalise else 1.0
        assert mask == [True] * num_shared + [e in best for e in range(count)]
        expected = [1.0] * num_shared + [s[e] / total if e in best else 0.0 for e in range(count)]
        assert weight == pytest.approx(expected, abs=1e-6)


def test_a_single_expert_keeps_a_gradient_when_weights_are_renormalised() -> None:
    router = made(active=1, renormalise=True)
    weight = router(inputs()).weight
    assert weight is not None
    (gradient,) = torch.autograd.grad(weight.square().sum(), router.logits.weight)
    assert gradient.norm() > 1e-3


@pytest.mark.parametrize("scores", ["softmax", "sigmoid"])
def test_a_bias_moves_the_choice_and_no_weight(scores: str) -> None:
    router = made(scores=scores, renormalise=False, balance="sign_bias")
    assert router.balancer.bias is not None
    router.balancer.bias[3] = 10.0
    seen = inputs()
    found = plan(router, seen)
    assert found.weight is not None
    assert found.mask[..., 3].all()
    logits = seen.hidden @ router.logits.weight.detach().T
    assert torch.allclose(found.weight, router.affinity(logits) * found.mask, atol=1e-6)


@pytest.mark.parametrize("scores", ["softmax", "sigmoid"])
@pytest.mark.parametrize("num_shared", [0, 1])
def test_the_loss_counts_choices_without_bias_and_no_shared_expert(
    scores: str, num_shared: int
) -> None:
    """arXiv:2412.19437, equations 17 to 20: f_i counts the top of s, P_i is its share of s."""
    router = made(
        scores=scores,
        num_shared=num_shared,
        balance=["sign_bias", {"method": "auxiliary", "scope": "sequence"}],
    )
    assert router.balancer.bias is not None
    router.balancer.bias[0] = 10.0
    trace = traced(router)
    logits = (trace.inputs.hidden @ router.logits.weight.T).detach()
    total = 0.0
    for sequence in logits.tolist():
        shares = [0.0] * 8
        p = [0.0] * 8
        for row in sequence:
            s = affinities(row, scores)
            for e in sorted(range(8), key=lambda e: -s[e])[:2]:
                shares[e] += 8 / (2 * len(sequence))
            p = [one + value / sum(s) / len(sequence) for one, value in zip(p, s, strict=True)]
        total += sum(f * mean for f, mean in zip(shares, p, strict=True)) / len(logits)
    loss = router.aux_losses["load_balance"]
    assert loss.weight == 0.01
    assert loss.compute(trace).item() == pytest.approx(total, abs=1e-5)


@pytest.mark.parametrize("balance", [{"method": "sign_bias", "rate": 0.02}, "quantile"])
def test_a_bias_evens_the_load_of_training(balance: str | dict[str, Any]) -> None:
    """Hidden states with a mean, so that most tokens want the same experts."""
    router = made(scores="sigmoid", balance=balance)

    def spread() -> float:
        loads = torch.cat([traced(router, seed, 1.0).plan.mask for seed in range(10, 16)])
        load = loads.float().mean((0, 1))
        return float(load.max() - load.min())

    before = spread()
    with torch.no_grad():
        for step in range(60):
            router.after_step(traced(router, step % 6, 1.0))
    assert before > 0.4
    assert spread() < 0.3 * before
    assert router.balancer.bias is not None
    assert abs(float(router.balancer.bias.mean())) < 1e-5


def test_the_z_loss_sees_the_chosen_experts_alone() -> None:
    router = made(num_shared=1, balance="z")
    trace = traced(router)
    logits = trace.inputs.hidden @ router.logits.weight.T
    expected = logits.logsumexp(-1).square().mean()
    assert torch.allclose(router.aux_losses["router_z"].compute(trace), expected)
    assert router.aux_losses["router_z"].weight == 0.001


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_experts": 1}, "num_experts is 1"),
        ({"active": 9}, "active is 9"),
        ({"num_shared": -1}, "num_shared is -1"),
        ({"granularity": 0}, "granularity is 0"),
        ({"active": 8, "balance": "quantile"}, "left out"),
    ],
)
def test_a_bad_option_is_refused_in_one_line(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as error:
        TokenChoice(**{"num_experts": 8, "active": 2, **options})
    assert "\n" not in str(error.value)


TINY = {"decoder": decoder_config("tiny", 256, 128), "seq_len": 128}


@pytest.mark.parametrize("budget", [0.4, 0.5, 0.7])
@pytest.mark.parametrize(
    "options",
    [
        *({}, {"num_shared": 1}, {"granularity": 2}, {"granularity": 3}),
        *({"num_shared": 2, "granularity": 2}, {"num_experts": 16}),
    ],
    ids=str,
)
def test_the_solved_width_costs_the_budget(options: dict[str, Any], budget: float) -> None:
    """As counted from plans that are run, on the backbone of `quick`; within 1 %."""
    found = model("top2_moe", options, budget=budget, **TINY)
    run = run_of(tokens(2, 128) % 50, "causal")
    found.decoder(run)
    spent = found.evaluation_ledger.active(run.counts, run.tokens.numel()) / run.tokens.numel()
    assert spent == pytest.approx(found.solution.target, rel=0.01)


class Nearest(ThresholdChoice):
    """Takes the experts within T of the best."""

    def __init__(self, mean_experts: float = 1.5) -> None:
        super().__init__(8, 3, mean_experts, "controlled", 0.1, 0.05, True, "none")

    def forward(self, inputs: Any) -> Any:
        logits = self.score(inputs)
        p = self.affinity(logits)
        top = p.topk(self.active).values
        taken = top[..., :1] - top <= self.threshold_in(inputs)
        taken[..., 0] = True
        return self.plan(self.first(taken, logits, p, inputs), logits, p)


@pytest.mark.parametrize("wanted", [1.2, 1.8])
def test_a_controlled_threshold_holds_the_mean_number_of_experts(wanted: float) -> None:
    router = Nearest(wanted)
    torch.manual_seed(0)
    router.build(spec_of(router))
    taken = list[float]()
    with torch.no_grad():
        for step in range(200):
            trace = traced(router, step % 7)
            router.after_step(trace)
            taken.append(float(trace.plan.mask.sum(-1).float().mean()))
    assert sum(taken[-70:]) / 70 == pytest.approx(wanted, abs=0.03)
    assert abs(taken[0] - wanted) > 0.2  # it had something to do


def test_evaluation_reads_the_knob_and_training_the_threshold() -> None:
    router = Nearest()
    router.build(spec_of(router))
    assert router.knob is not None
    router.threshold.fill_(1.0)
    router.knob.fill_(-1.0)
    assert plan(router, inputs("topk")).mask.sum(-1).eq(3).all()
    assert plan(router, inputs("causal")).mask.sum(-1).eq(1).all()


def test_a_fixed_threshold_has_no_knob_and_stays() -> None:
    router = ThresholdChoice(8, 2, 1.2, "fixed", 0.3, 0.1, False, "none")
    router.build(spec_of(router))
    assert router.knob is None
    router.after_step(traced(router))
    assert router.threshold.item() == pytest.approx(0.3)


def selected(trace: LayerTrace) -> Tensor:
    return trace.of_chosen(trace.plan.mask)


def test_a_trace_leaves_out_the_shared_experts() -> None:
    trace = traced(made(num_shared=2))
    assert selected(trace).shape[-1] == 8
    assert selected(trace).sum(-1).eq(2).all()
    assert trace.plan.mask.sum(-1).eq(4).all()
