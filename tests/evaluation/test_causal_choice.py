"""The causal choice against top-k: known models, loops over plans, and the state left alone."""

from typing import Any

import pytest
import torch

from bench.backbone.passes import make_pass
from bench.evaluation.calibrate import calibrate
from bench.evaluation.causal_choice import causal_choice
from bench.evaluation.evaluate import evaluate
from bench.evaluation.headline import knobs_of
from bench.model.assemble import Model
from bench.rng import generator
from tests.world import fit, model, windows


def measured(found: Model) -> Any:
    return causal_choice(found, windows(12), 5, 0, torch.float32)


def test_it_is_that_of_loops_over_the_plans() -> None:
    found = model("mod")
    fit(found, 4)
    calibrate(found, windows(12), 1.0)
    knobs, said = knobs_of(found.decoder), measured(found)
    assert all(torch.equal(a, b) for a, b in zip(knobs, knobs_of(found.decoder), strict=True))
    assert said.loss == pytest.approx(evaluate(found, windows(12), 5).nats.mean(), rel=1e-6)
    run = make_pass(torch.from_numpy(windows(12).tokens)[:, :-1], None, selection="topk")
    with torch.no_grad():
        logits = found.decoder(run)
    target = torch.from_numpy(windows(12).tokens)[:, 1:]
    nats = -logits.log_softmax(-1).gather(-1, target.unsqueeze(-1))
    assert said.topk_loss == pytest.approx(float(nats.mean()), rel=1e-5)
    spent = found.evaluation_ledger.fixed + found.evaluation_ledger.routers
    for site, (trace, knob) in enumerate(zip(run.traces, knobs, strict=True)):
        scores, taken = trace.plan.scores[..., 1], trace.plan.mask[..., 1]
        assert knob is not None
        same = float(((scores > -knob) == taken).float().mean())
        own = scores > 0
        assert said.accuracy[site] == pytest.approx(same)
        assert said.own_accuracy[site] == pytest.approx(float((own == taken).float().mean()))
        counts = torch.stack((~own, own), -1).sum(1)
        spent += found.evaluation_ledger.sites[site].active(counts) / own.numel()
    assert said.own_spend == pytest.approx(spent / found.solution.target)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mod", {"causal": "predictor"}),
        ("attention_mod", {}),
        ("early_exit", {}),
        ("random", {"over": "block"}),
    ],
)
def test_any_router_with_a_base_and_a_knob_is_measured(name: str, options: dict[str, Any]) -> None:
    found = model(name, options)
    fit(found, 2)
    calibrate(found, windows(12), 1.0)
    said = measured(found)
    assert all(0 <= share <= 1 for share in (*said.accuracy, *said.own_accuracy))
    assert len(said.accuracy) == len(found.decoder.routers) and said.own_spend > 0


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("top2_moe", {}),
        ("dense", {}),
        ("mlp_gate", {"estimator": "relaxed"}),
        ("mode", {}),
    ],
)
def test_others_are_not(name: str, options: dict[str, Any]) -> None:
    assert measured(model(name, options)) is None


def test_the_noise_is_drawn_on_the_device_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU refuses a generator of the CPU, which is the default."""
    asked: list[tuple[object, ...]] = []

    def drawn(*arguments: Any) -> torch.Generator:
        asked.append(arguments)
        return generator(0, "noise")

    monkeypatch.setattr("bench.evaluation.causal_choice.generator", drawn)
    monkeypatch.setattr("bench.evaluation.causal_choice.device_of", lambda _: "the device")
    measured(model("mod"))
    assert asked == [(0, "causal-choice", "the device")]
