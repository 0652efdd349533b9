"""Options of router training in a run.

What a step does, what it costs, how it resumes, and what evaluation keeps.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.evaluation.evaluate import evaluate
from bench.routing.losses import load_balance_single, router_z
from bench.training.auxiliary import active_losses
from bench.training.checkpoint import Checkpoints
from bench.training.optim import trapezoid
from tests.audit import audit
from tests.equipped import ALL, SMALL, STEPS, built, fit, same
from tests.small import SEQ_LEN, run_of, tokens, windows


@pytest.mark.parametrize(
    "training",
    [
        {},
        {"lr_ratio": 0.25},
        {"clip": 1e-4},
        {"weight_decay": 2.0},
        {"lr_ratio": 3.0, "weight_decay": 1.0},
    ],
)
def test_a_step_of_a_router_is_adamw_written_out(training: dict[str, Any]) -> None:
    """From the gradients that reached its parameters.

    Clipped as one, then Adam with decoupled decay, in plain numbers.
    """
    found = built("mlp_gate")
    router = found.decoder.routers[0]
    parameters = list(router.parameters())
    start = [p.detach().double().clone() for p in parameters]
    gradients: list[list[Tensor]] = [[] for _ in parameters]
    for parameter, seen in zip(parameters, gradients, strict=True):
        parameter.register_post_accumulate_grad_hook(
            lambda p, seen=seen: seen.append(p.grad.double().clone())
        )  # type: ignore[union-attr]
    fit(found, **training)
    rate, decay = 0.002 * training.get("lr_ratio", 1.0), training.get("weight_decay", 0.0)
    first, second = ([torch.zeros_like(p) for p in start] for _ in range(2))
    for step in range(STEPS):
        raw = [seen[step] for seen in gradients]
        norm = torch.stack([g.square().sum() for g in raw]).sum().sqrt()
        factor = min(1.0, training["clip"] / (norm.item() + 1e-6)) if "clip" in training else 1.0
        lr = rate * trapezoid(step / STEPS, 0.0, 0.0)
        for index, gradient in enumerate(raw):
            g = gradient * factor
            first[index] = 0.9 * first[index] + 0.1 * g
            second[index] = 0.95 * second[index] + 0.05 * g**2
            corrected = (
                first[index]
                / (1 - 0.9 ** (step + 1))
                / ((second[index] / (1 - 0.95 ** (step + 1))).sqrt() + 1e-8)
            )
            start[index] = start[index] * (1 - lr * decay) - lr * corrected
    for parameter, expected in zip(parameters, start, strict=True):
        assert torch.allclose(parameter.double(), expected, atol=1e-6)


def test_a_learnt_deviation_is_priced_in_training_and_free_in_evaluation() -> None:
    base, noisy = built("top2_moe"), built("top2_moe", noise="noisy_top_k")
    router = noisy.decoder.routers[0]
    width, count = SMALL.d_model, 8
    assert router.noise is not None
    assert router.noise.noise_weight.shape == (width, count)
    more = noisy.ledger.sites[0].router - base.ledger.sites[0].router
    assert 2 * width * count < more <= 2 * width * count + 5 * count
    assert noisy.evaluation_ledger.sites[0].router == base.evaluation_ledger.sites[0].router
    assert noisy.solution == base.solution
    jittered = built("top2_moe", noise="jitter")
    assert jittered.ledger.sites[0].router - base.ledger.sites[0].router == width
    balanced = built("top2_moe", balance_bias=0.001)
    fit(balanced)
    assert balanced.ledger.spent["router/after_step"] > 0


@pytest.mark.parametrize(
    ("name", "training"),
    [
        ("top2_moe", ALL),
        ("adaptive_moe", {**ALL, "noise": "noisy_top_k"}),
        ("mod", {"noise": "noisy_top_k"}),
    ],
)
def test_the_counter_finds_what_the_ledger_says(name: str, training: dict[str, Any]) -> None:
    found = built(name, **training)
    for lines in audit(
        found, tokens(2, SEQ_LEN + 1), torch.zeros(2, SEQ_LEN + 1, dtype=torch.long)
    ).values():
        for line in lines:
            if line.phase == "forward":
                assert line.counted == pytest.approx(line.ledger, abs=2), (
                    line
                )  # what a pass costs whatever its size


def test_standard_losses_are_weighed_by_name_and_a_routers_own_come_first() -> None:
    gate, adaptive, plain = (
        built(name).decoder.routers[0] for name in ("mlp_gate", "adaptive_moe", "hash")
    )
    assert [
        (name, weight, loss.compute)
        for name, weight, loss in active_losses(gate, {"router_z": 0.5})
    ] == [("router_z", 0.5, router_z)]
    own = {
        name: loss.compute
        for name, _, loss in active_losses(adaptive, {"load_balance": 1.0, "importance": 0.1})
    }
    assert own["load_balance"] is load_balance_single
    assert set(own) == {"load_balance", "importance"}
    assert active_losses(gate, {}) == active_losses(plain, {"load_balance": 1.0}) == []


def test_a_standard_loss_is_charged_and_recorded() -> None:
    found = built("mlp_gate", losses={"router_z": 0.5})
    done = fit(found, losses={"router_z": 0.5})
    assert done.auxiliary["router_z"] > 0
    assert found.ledger.spent["auxiliary/forward"] > 0


class Killed(BaseException):
    """Stands for a signal."""


@pytest.mark.parametrize(
    "training",
    [
        ALL | {"weight_decay": 0.1},
        {"noise": "noisy_top_k", "balance_bias": 0.05},
        {"noise": "jitter"},
    ],
)
def test_a_run_that_was_killed_ends_as_it_would_have(
    training: dict[str, Any], tmp_path: Path
) -> None:
    def kill(step: int, *_: object) -> None:
        if step == 3:
            raise Killed

    whole = built("top2_moe", **training)
    fit(whole, steps=6, **training)
    with pytest.raises(Killed):
        fit(
            built("top2_moe", **training),
            steps=6,
            checkpoints=Checkpoints(tmp_path, "key", 0),
            probe=kill,
            **training,
        )
    resumed = built("top2_moe", **training)
    fit(resumed, steps=6, checkpoints=Checkpoints(tmp_path, "key", 0), **training)
    ends = [found.decoder.state_dict() for found in (whole, resumed)]
    assert same(*ends)
    assert whole.ledger.spent == resumed.ledger.spent
    if "balance_bias" in training:
        assert any(value.any() for name, value in ends[0].items() if name.endswith("noise.bias"))


def test_evaluation_keeps_the_bias_and_drops_the_noise() -> None:
    found, plain = built("top2_moe", **ALL), built("top2_moe")
    noise = found.decoder.routers[0].noise
    assert noise is not None
    masks = [
        evaluate(each, windows(), batch_size=4, keep=True).masks[0]
        for each in (found, found, plain)
    ]
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(masks[0], masks[2])
    assert noise.bias is not None
    noise.bias[3] = 2.0
    assert evaluate(found, windows(), batch_size=4, keep=True).masks[0][..., 3].all()


def test_experts_are_weighed_without_the_bias() -> None:
    found = built("top2_moe", balance_bias=0.001)
    noise = found.decoder.routers[0].noise
    assert noise is not None and noise.bias is not None
    noise.bias[3] = 2.0
    run = run_of(tokens(), "causal")
    found.decoder(run)
    plan = run.traces[0].plan
    assert plan.scores is not None and plan.weight is not None
    p = plan.scores.softmax(-1) * plan.mask
    assert torch.allclose(plan.weight, p / p.sum(-1, keepdim=True))
    assert plan.mask[..., 3].all()
