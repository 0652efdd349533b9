"""Cells of the regime `controller`.

The trained parameters, their cost, and that it does not matter which process pretrained or died.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.cli import main
from bench.config.recipe import TrainConfig
from bench.config.row import RowConfig
from bench.flops.budget import training_target
from bench.model.assemble import Model
from bench.record import Record, read_records
from bench.routing.contract import Router
from bench.routing.load_routers import find
from bench.routing.registry import RouterCard
from bench.runner.frozen import allowance
from bench.runner.resolve import resolve
from bench.runner.rows import unmet_needs
from bench.runner.run_cell import run_cell
from bench.training.checkpoint import Checkpoints
from bench.training.loop import Probe, train
from bench.training.task import Allowance, TrainTask
from tests import world
from tests.world import CONFIG, FROZEN_ROWS, LEARNED, SEQ_LEN, backbone, frozen, row_id, split

BATCH, STEPS = 4, 6


def card(row: RowConfig) -> RouterCard:
    return find(row.router).describe(row.options)


FROZEN: dict[str, Any] = {"regime": "controller", "pretrain": {"tokens": 1024, "batch_size": 4}}


class Killed(BaseException):
    """Stands for a signal."""


def fit(found: Model, probe: Probe | None = None, checkpoints: Checkpoints | None = None) -> Model:
    """Train for some steps."""
    recipe = TrainConfig(reference_tokens=1, batch_size=BATCH, probes=2)
    task = TrainTask(split(), recipe, SEQ_LEN, seed=0)
    allowance = Allowance(math.inf, STEPS * BATCH * SEQ_LEN)
    train(found, task, allowance, probe=probe, checkpoints=checkpoints)
    return found


def parameters_of(routers: list[Router]) -> set[int]:
    return {id(p) for router in routers for p in router.parameters()}


@pytest.mark.parametrize(
    ("name", "options"), [row for row in FROZEN_ROWS if row in LEARNED], ids=row_id
)
def test_routers_move_and_nothing_else_does(name: str, options: Mapping[str, Any]) -> None:
    found = fit(frozen(name, options))
    given = backbone().weights
    mine, start = (
        parameters_of(found.decoder.routers),
        dict(frozen(name, options).decoder.named_parameters()),
    )
    for full_name, weight in found.decoder.named_parameters():
        if id(weight) in mine:
            assert not torch.equal(weight, start[full_name]), full_name
        else:
            assert torch.equal(weight, given[full_name.replace(".ffn.full.", ".ffn.")]), full_name


def test_a_killed_training_goes_on_to_the_same_weights_and_bill(tmp_path: Path) -> None:
    def die(step: int, *_: float) -> None:
        raise Killed

    whole = fit(frozen("mlp_gate"))
    with pytest.raises(Killed):
        fit(frozen("mlp_gate"), die, Checkpoints(tmp_path, "k", 0))
    again = fit(frozen("mlp_gate"), checkpoints=Checkpoints(tmp_path, "k", 0))
    assert world.digest(again.decoder.state_dict()) == world.digest(whole.decoder.state_dict())
    assert again.ledger.spent == whole.ledger.spent


def test_a_token_of_training_costs_what_is_written_out_here() -> None:
    """Forward as in evaluation.

    Back through the head and all layers after the first routed one, once a weight and twice a pair.
    """
    d, width, rank, rho = CONFIG.d_model, CONFIG.ffn_width, CONFIG.cheap_rank, 0.25
    full, cheap = 6 * d * width, 4 * d * rank
    linear, pairs, head = 8 * d * d, 4 * d * (SEQ_LEN + 1) / 2, 2 * d * CONFIG.vocab_size
    routed = rho * full + (1 - rho) * cheap
    forward = head + 4 * (linear + pairs) + full + 3 * routed
    backward = head + 2 * (linear + 2 * pairs) + 2 * routed
    assert training_target(CONFIG, (1, 2, 3), SEQ_LEN, rho, frozen=True) == pytest.approx(
        forward + backward
    )
    assert training_target(CONFIG, (1, 2, 3), SEQ_LEN, rho, frozen=False) == pytest.approx(
        3 * forward
    )


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOKEN_ROUTING_BENCH_CACHE", str(tmp_path / "cache"))
    return world.write_text(tmp_path)


def test_what_cannot_learn_is_not_trained(text: Path) -> None:
    budgets: dict[str, Allowance] = {}
    for name in ("random@ffn", "mlp_gate"):
        cell = world.cell(text, name, **FROZEN)
        budgets[name] = allowance(cell, frozen(cell.row.router, cell.row.options))
    assert budgets["random@ffn"] == Allowance(0, 0)
    assert budgets["random@ffn"].spent(0, 0) == 1.0
    assert 0 < budgets["mlp_gate"].flops < math.inf


def run(suite: Path) -> dict[str, Record]:
    """Row -> its record, by way of the command line, in which experts are skipped."""
    out = suite.parent / "runs"
    command = [
        "run",
        "--suite",
        str(suite),
        "--routers",
        "random@ffn,top2_moe,mlp_gate",
        "--seeds",
        "1",
        "--workers",
        "0",
    ]
    assert main([*command, "--out", str(out)]) == 0
    assert "random@ffn" in (out / "leaderboard.md").read_text(encoding="utf-8")
    return {record.cell.row: record for _, record in read_records(out)}


@pytest.mark.usefixtures("undrawn")
def test_a_cell_is_the_same_whoever_pretrained(
    text: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run(world.write_suite(text.parent / "tiny.yaml", text, **FROZEN))
    assert "skipped  top2_moe: it chooses among expert0" in capsys.readouterr().out
    untrained, after = found["random@ffn"], found["mlp_gate"]
    monkeypatch.setenv("TOKEN_ROUTING_BENCH_CACHE", str(text.parent / "another"))
    alone = run_cell(resolve(world.cell(text, "mlp_gate", **FROZEN)), "", Path())
    assert {untrained.status, after.status} == {"ok"}
    assert world.without_clock(after) == world.without_clock(alone)
    assert untrained.training is not None
    assert (
        untrained.training.steps,
        untrained.training.tokens_per_second,
        len(untrained.curve),
    ) == (0, 0.0, 1)
    assert untrained.flops is not None
    assert after.flops is not None
    assert untrained.flops.training_total == 0 < after.flops.training_total
    assert untrained.flops.pretraining == after.flops.pretraining > 0
    spent = after.flops.training
    assert 0 < spent["backbone/backward"] < spent["backbone/forward"]
    assert spent["router/backward"] == 2 * spent["router/forward"]


@pytest.mark.parametrize(
    ("router", "reason"),
    [("top2_moe", "expert0"), ("dense_matched", "expert0"), ("mod", ""), ("mlp_gate", "")],
)
def test_rows_without_pretrained_paths_are_skipped_with_a_reason(
    text: Path, router: str, reason: str
) -> None:
    suite = world.suite(text, **FROZEN)
    assert reason in unmet_needs(card(suite.row(router)), 2, regime="controller")
    assert bool(reason) == bool(unmet_needs(card(suite.row(router)), 2, regime="controller"))
    assert not unmet_needs(card(suite.row(router)), 2)
