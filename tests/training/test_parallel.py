"""Training on two ranks against one process: losses, charges, gradients, checkpoints."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from bench.model.assemble import Model
from bench.training.parallel import Parallel, full, spread
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
]


def trained(
    parallel: Parallel, name: str, options: Mapping[str, Any], steps: int, **changes: Any
) -> dict[str, Any]:
    """Train a small model on all ranks, or in one process, and return all that ranks must share."""
    return followed(model(name, options), parallel, steps, **changes)


def followed(found: Model, parallel: Parallel, steps: int, **changes: Any) -> dict[str, Any]:
    """Train a model and return its losses, charges, choices and state."""
    losses: list[float] = []
    spread(found.decoder, parallel, CPU)
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
    alone, found = trained("none", name, options, STEPS), on_ranks(both, name, options, STEPS)
    for kind in range(2):
        assert_same([rank[kind] for rank in found], alone)
