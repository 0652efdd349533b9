"""The JEPA-guided gate against its definition, and the state that probing may change."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.routing.contract import RoutingPlan
from bench.routing.learned_gate import Gate
from bench.routing.load_routers import find
from bench.training.utility import Oracle
from tests.routers.asking import inputs
from tests.world import model, run_of, tokens, trained_like

BATCH, SEQ = 3, 24


def built(name: str = "mlp_gate", **options: Any) -> Gate:
    router = model(name, options).decoder.routers[0]
    assert isinstance(router, Gate)
    return router


def scores_of(plan: RoutingPlan) -> Tensor:
    assert plan.scores is not None
    return plan.scores[..., 1]


def test_jepa_score_is_of_predictions_of_both_outcomes() -> None:
    router = built("jepa_gate", latent=4)
    seen = inputs()
    plan = router(seen)
    first, _, second = router.predictor  # type: ignore[misc]
    z = F.linear(seen.hidden, router.encoder.weight, router.encoder.bias)
    outcome: list[Tensor] = []
    for action in router.actions:
        hidden = F.gelu(F.linear(torch.cat((z, action.expand_as(z)), -1), first.weight, first.bias))
        outcome.append(F.linear(hidden, second.weight, second.bias))
    assert torch.allclose(plan.extras["latent"], torch.stack(outcome, 2), atol=1e-6)
    features = torch.cat((outcome[1], outcome[0], outcome[1] - outcome[0]), -1)
    assert torch.allclose(
        scores_of(plan),
        F.linear(features, router.score.weight, router.score.bias).squeeze(-1),
        atol=1e-6,
    )


def test_the_target_head_is_orthonormal_and_never_trained() -> None:
    router = built("jepa_gate", latent=4)
    assert torch.allclose(router.head @ router.head.T, torch.eye(4), atol=1e-5)
    assert "head" not in dict(router.named_parameters())
    assert "head" in router.state_dict()


def test_probing_runs_both_paths_for_a_share_and_leaves_the_stream_as_it_was() -> None:
    plain, probing = (
        model("jepa_gate", {"targets": targets, "probe_share": 0.3})
        for targets in ("executed", "probe")
    )
    logits: list[Tensor] = []
    for built_model in (plain, probing):
        trained_like(built_model.decoder)
        run = run_of(tokens(BATCH, SEQ))
        logits.append(built_model.decoder(run))
        both = run.traces[0].plan.mask.all(-1).float().mean()
        aligned = built_model.decoder.routers[0].aux_losses["jepa"].compute(run.traces[0])
        assert aligned.isfinite()
        assert float(both) == pytest.approx(0.0 if built_model is plain else 0.3, abs=0.15)
    assert torch.allclose(logits[0], logits[1], atol=1e-5)
    assert probing.decoder.routers[0].trains_dense


def test_alignment_trains_its_own_router_and_neither_decoder_nor_other_routers() -> None:
    built_model = model("jepa_gate")
    trained_like(built_model.decoder)
    run = run_of(tokens(BATCH, SEQ))
    built_model.decoder(run)
    *others, last = built_model.decoder.routers
    last.aux_losses["jepa"].compute(run.traces[-1]).backward()
    own = {id(parameter) for parameter in last.parameters()}
    trained = {
        id(p) for p in built_model.decoder.parameters() if p.grad is not None and p.grad.any()
    }
    assert others
    # The score has no part in the alignment.
    assert trained == own - {id(parameter) for parameter in last.score.parameters()}


def test_without_alignment_the_loss_does_not_run() -> None:
    assert find("jepa_gate").make({"alignment": 0}).aux_losses["jepa"].weight == 0


def test_a_policy_gradient_is_of_the_sampled_paths_and_not_of_the_probed_ones() -> None:
    gradients: list[Tensor] = []
    for targets in ("executed", "probe"):
        built_model = model(
            "jepa_gate", {"estimator": "reinforce", "targets": targets, "probe_share": 1.0}
        )
        run = run_of(tokens(BATCH, SEQ))
        built_model.decoder(run)
        router, trace = built_model.decoder.routers[0], run.traces[0]
        trace.token_loss = torch.arange(BATCH * SEQ).view(BATCH, SEQ) / 10
        assert trace.plan.mask.all() == (targets == "probe")
        gradients.append(
            torch.autograd.grad(
                router.aux_losses["policy_gradient"].compute(trace),
                router.get_parameter("score.weight"),
            )[0]
        )
    assert torch.allclose(*gradients, atol=1e-6) and gradients[0].norm() > 1e-4


def test_an_oracle_weighs_the_path_that_a_probing_gate_left_out_as_the_gate_would() -> None:
    utilities: list[Tensor] = []
    for targets in ("executed", "probe"):
        options = {"targets": targets, "probe_share": 0.5, "utility": 1.0, "oracle": "off_policy"}
        built_model = model("jepa_gate", options)
        trained_like(built_model.decoder)
        oracle, ids = Oracle(built_model, 0, torch.float32), tokens(BATCH, SEQ + 1)
        run = run_of(ids[:, :-1], history=oracle.history())
        with torch.no_grad():
            loss = F.cross_entropy(
                built_model.decoder(run).transpose(1, 2), ids[:, 1:], reduction="none"
            )
        flip = torch.zeros(BATCH, SEQ, dtype=torch.bool)
        flip[:, ::3] = True
        utilities.append(oracle.fork(run, 0, flip, ids[:, 1:], loss)[0][flip])
    assert torch.allclose(*utilities, atol=1e-4) and utilities[0].abs().max() > 1e-3
