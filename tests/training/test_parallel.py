"""Training on two ranks against one process: losses, charges, gradients, checkpoints."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.backbone.decoder import Decoder
from bench.errors import UserError
from bench.model.assemble import Model
from bench.ranks import all_agree, world
from bench.training.checkpoint import Checkpoints
from bench.training.parallel import Parallel, average, full, is_shard, spread
from tests.ranks import on_ranks
from tests.world import fit, model, row_id

CPU = torch.device("cpu")
STEPS = 20
CLOSE = 1e-5
"""Largest difference of a loss, in nats per token."""

FEW: list[tuple[str, dict[str, Any]]] = [("top2_moe", {"balance": "sign_bias"})]
ROWS: list[tuple[str, dict[str, Any]]] = [
    ("dense", {}),
    ("mlp_gate", {}),
    ("mod", {}),
    ("top2_moe", {"balance": "auxiliary"}),
    ("hash", {}),
    ("mlp_gate", {"estimator": "reinforce", "utility": 0.1}),
    ("random", {"over": "block"}),
    ("expert_threshold", {}),
    ("jepa_gate", {}),
]
UNTIED = {"jepa_gate": 6}
"""Router -> steps before two scores tie. A tie turns by rounding, in one process too."""


def trained(
    parallel: Parallel, name: str, options: Mapping[str, Any], steps: int, **changes: Any
) -> dict[str, Any]:
    """Train a small model on all ranks, or in one process, and return all that ranks must share."""
    return followed(model(name, options), parallel, steps, **changes)


def followed(found: Model, parallel: Parallel, steps: int, **changes: Any) -> dict[str, Any]:
    """Train a model and return its losses, charges, choices and state."""
    losses: list[float] = []
    spread(found.decoder, parallel, CPU)
    # Without shards the losses would be right too, as those of copies.
    shards = world().size if parallel == "fsdp" else 1
    assert share_held(found.decoder) == pytest.approx(1 / shards, rel=0.02)
    done = fit(found, steps, report=lambda _, loss: losses.append(float(loss)), **changes)
    return {
        "losses": losses,
        "spent": dict(found.ledger.spent),
        "prices": [site.router for site in found.ledger.sites],
        "auxiliary": done.auxiliary,
        "gradients": done.gradients,
        "shares": done.shares,
        "weights": {name: full(p.detach()) for name, p in found.decoder.named_parameters()},
        "buffers": dict(found.decoder.named_buffers()),
    }


def share_held(decoder: Decoder) -> float:
    """Return the share of the weights outside routers that lies on this rank."""
    copied = {p for router in decoder.routers for p in router.parameters()}
    weights: list[Any] = [p for p in decoder.parameters() if p not in copied]
    held = sum((p.to_local() if is_shard(p) else p).numel() for p in weights)
    return held / sum(p.numel() for p in weights)


def assert_same(ranks: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    """Compare each rank with one process; ranks agree to the last bit."""
    for found in ranks:
        assert found["losses"] == ranks[0]["losses"] and found["spent"] == ranks[0]["spent"]
        assert found["losses"] == pytest.approx(alone["losses"], abs=CLOSE)
        assert found["spent"] == pytest.approx(alone["spent"], rel=1e-12)
        assert found["prices"] == pytest.approx(alone["prices"], rel=1e-12)
        assert found["auxiliary"] == pytest.approx(alone["auxiliary"], abs=CLOSE)
        assert found["shares"] == alone["shares"]
        for ours, theirs in zip(found["gradients"], alone["gradients"], strict=True):
            assert torch.allclose(
                torch.tensor(ours), torch.tensor(theirs), rtol=1e-3, atol=1e-5, equal_nan=True
            )
        for name, buffer in alone["buffers"].items():
            assert torch.allclose(found["buffers"][name].float(), buffer.float(), atol=1e-4), name


def both(name: str, options: Mapping[str, Any], steps: int) -> list[dict[str, Any]]:
    """Train by copies and by shards, in one start of the ranks."""
    return [trained(kind, name, options, steps) for kind in ("ddp", "fsdp")]


@pytest.mark.parametrize(("name", "options"), FEW, ids=row_id)
def test_a_few_steps_on_two_ranks_are_those_of_one_process(
    name: str, options: dict[str, Any]
) -> None:
    alone, found = trained("none", name, options, 3), on_ranks(both, name, options, 3)
    for kind in range(2):
        assert_same([rank[kind] for rank in found], alone)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), ROWS + FEW, ids=row_id)
def test_losses_on_two_ranks_are_those_of_one_process(name: str, options: dict[str, Any]) -> None:
    """Also for paths that are idle on one rank, sampled choices, quantiles and forks."""
    steps = UNTIED.get(name, STEPS)
    alone, found = trained("none", name, options, steps), on_ranks(both, name, options, steps)
    for kind in range(2):
        assert_same([rank[kind] for rank in found], alone)


def resumed(folder: Path, kind: Parallel, name: str, options: dict[str, Any]) -> list[Any]:
    """Train in one go, and again from the checkpoint in the middle."""
    found: list[dict[str, Any]] = []
    for _ in range(2):
        checkpoints = Checkpoints(folder, "key", 0.0)
        found.append(trained(kind, name, options, 4, checkpoints=checkpoints))
        # The newest but one is of the third step.
        if all_agree(True) and world().leads:
            shutil.rmtree(folder / "step-000000004")
        all_agree(True)
    return found


@pytest.mark.parametrize("kind", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_a_resumed_run_on_ranks_is_the_uninterrupted_one(tmp_path: Path, kind: Parallel) -> None:
    row = ("top2_moe", {"balance": "sign_bias"})
    for whole, again in on_ranks(resumed, tmp_path, kind, *row):
        assert again["losses"] == whole["losses"][3:]
        assert again["spent"] == whole["spent"]
        for part in ("weights", "buffers"):
            for name, value in whole[part].items():
                assert torch.equal(again[part][name], value), name


@pytest.mark.slow
def test_one_process_goes_on_from_shards(tmp_path: Path) -> None:
    row = ("top2_moe", {"balance": "sign_bias"})
    (whole, _), _ = on_ranks(resumed, tmp_path, "fsdp", *row)
    alone = trained("none", *row, 4, checkpoints=Checkpoints(tmp_path, "key", 1e6))
    assert alone["losses"] == pytest.approx(whole["losses"][3:], abs=CLOSE)


def averaged() -> tuple[Tensor, ...]:
    """Average gradients of parameters that all ranks, one rank and no rank have used."""
    rank = world().rank
    used, once, never = (nn.Parameter(torch.zeros(2)) for _ in range(3))
    used.grad = torch.full((2,), float(rank))
    once.grad = torch.ones(2) if rank == 1 else None
    average([used, once, never])
    assert used.grad is not None and once.grad is not None and never.grad is None
    return used.grad, once.grad


def test_gradients_of_copies_are_averaged_and_none_stays_none() -> None:
    for found in on_ranks(averaged):
        assert [gradient.tolist() for gradient in found] == [[0.5, 0.5], [0.5, 0.5]]


def labelled() -> str:
    """Train a router that gets labels from utility, and return the refusal."""
    options = {"inner": "mlp_gate", "share": 0.5, "source": "oracle"}
    try:
        trained("ddp", "partially_supervised", options, 2)
    except UserError as error:
        return str(error)
    return ""


def test_labels_from_utility_are_refused() -> None:
    for said in on_ranks(labelled):
        assert "which several ranks cannot share. Run this row in one process." in said
