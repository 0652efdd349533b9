"""The proof of causality.

Honest routers pass it, and every way of looking ahead, beside or back is found and named.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.backbone.passes import make_pass
from bench.conformance.causality import BASES, TRIALS, TRIALS_NEEDED, prove
from bench.data import Windows
from bench.evaluation.evaluate import Evaluation, evaluate
from bench.model.assemble import Model, assemble
from bench.record import Causality
from bench.routing.contract import Router
from bench.routing.registry import Entry
from bench.runner.cells import Cell
from bench.runner.resolve import resolve
from bench.runner.run_cell import run_cell
from tests.conformance.peekers import (
    BatchMates,
    BatchSize,
    BlockTopK,
    Chaos,
    Dice,
    Disguised,
    FirstCallsOnly,
    Gate,
    InLowPrecision,
    Learns,
    Length,
    Memory,
    NextToken,
    Preview,
    RareLeak,
    RareOpening,
    Rounding,
    TopK,
    WeightOnly,
)
from tests.small import SEQ_LEN, blueprint, model, row_id, trained_like, windows
from tests.tiny import own_registry, suite, write_text

BATCH_SIZE = 64


def with_knobs(found: Model, value: float) -> Model:
    trained_like(found.decoder)
    for router in found.decoder.routers:
        if router.knob is not None:
            router.knob.fill_(value)
    return found


def proof_of(
    found: Model, seed: int = 0, held_out: Windows | None = None, dtype: torch.dtype = torch.float32
) -> Causality:
    held_out = held_out or windows(48)
    official = evaluate(found, held_out, BATCH_SIZE, dtype, keep=True)
    return prove(found.decoder, held_out, official, seed, BATCH_SIZE, dtype)


def build(router: type[Router], seed: int = 0) -> Model:
    return with_knobs(
        assemble(replace(blueprint("mlp_gate"), entry=Entry("x", "gate", "", router)), seed), 0.05
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [("mod", {}), ("adaptive_moe", {}), ("random", {"over": "ffn"}), ("dense", {})],
    ids=row_id,
)
def test_routers_of_every_kind_are_causal(name: str, options: Mapping[str, object]) -> None:
    found = proof_of(with_knobs(model(name, options), -0.4 if name == "random" else 0.1))
    assert found.passed, found.detail
    assert found.trials >= TRIALS_NEEDED == 228


def test_the_honest_gate_that_cheaters_derive_from_passes_and_says_its_power() -> None:
    found = proof_of(build(Gate))
    assert found.passed
    power = re.search(
        r"(\d+) suffix perturbations .* 2% of trials with (\d+\.\d)% probability", found.detail
    )
    assert power is not None
    assert float(power[2]) == pytest.approx(100 * (1 - 0.98 ** int(power[1])), abs=0.05)


@pytest.mark.parametrize(
    ("router", "says"),
    [
        (TopK, r"Suffix perturbation: the plan of layer 1 differs at sequence \d+, position \d+\."),
        (BlockTopK, r"Suffix perturbation: the plan of layer 1 differs"),
        (WeightOnly, r"Suffix perturbation: a weight of layer 1 differs"),
        (NextToken, r"Suffix perturbation: the plan of layer 1 differs"),
        (BatchMates, r"(Official evaluation|Batch size \d): the plan of layer 1 differs"),
        (BatchSize, r"Batch size 5: the plan of layer 1 differs"),
        (Length, r"Decoding: the plan of layer 1 differs"),
        (Dice, r"Determinism: asked the same twice, the router of layer 1 plans differently\."),
        (
            Memory,
            r"(Official evaluation|Determinism): the plan of layer 1 differs at sequence \d+, position 3",
        ),
        (Learns, r"State: a parameter or buffer changed"),
        (FirstCallsOnly, r"Official evaluation: the plan of layer 1 differs"),
        (Preview, r"Predictions"),
    ],
)
def test_a_cheater_is_found_and_the_first_offence_named(router: type[Router], says: str) -> None:
    found = proof_of(build(router))
    assert not found.passed
    assert re.match(says, found.detail), found.detail


def test_the_offending_position_is_right() -> None:
    """A router that reads one token ahead gives itself away at the last position before the cut,
    and nowhere earlier.
    """
    found = proof_of(build(NextToken), seed=3)
    named = re.search(r"position (\d+)", found.detail)
    assert named is not None and 0 <= int(named[1]) < SEQ_LEN - 1


@pytest.mark.slow
@pytest.mark.parametrize("router", [RareLeak, RareOpening])
def test_a_leak_in_two_per_cent_of_trials_is_found_with_the_probability_that_is_claimed(
    router: type[Router],
) -> None:
    missed = sum(proof_of(build(router), seed).passed for seed in range(25))
    assert missed <= 2


@pytest.mark.parametrize("seed", range(6))
def test_a_leak_cannot_pass_for_rounding(seed: int) -> None:
    found = proof_of(build(Disguised, seed), seed)
    assert re.match(
        r"Suffix perturbation(, all paths run in full)?: the plan of layer \d differs", found.detail
    ), found.detail


def test_decisions_that_rounding_turns_are_left_out_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not proof_of(build(Rounding)).passed
    monkeypatch.setattr("bench.conformance.comparison.TIE", 1e-2)
    monkeypatch.setattr("bench.conformance.comparison.TOLERANCE", 1e-2)
    found = proof_of(build(Rounding, seed=1), seed=1)
    assert found.passed, found.detail
    ties = re.search(rf"; (\d+) of {BASES * SEQ_LEN * 3} decisions were ties", found.detail)
    assert ties is not None and 0 < int(ties[1]) < 24
    assert found.trials == TRIALS, "sequences with another ending are in the same company"


def test_a_router_whose_decisions_rounding_turns_proves_nothing() -> None:
    assert re.match(r"Ties: (only )?\d+ of \d+ ", proof_of(build(Chaos)).detail)


def test_a_router_cannot_reach_the_targets_through_the_storage_of_its_tokens() -> None:
    batch = torch.arange(40).view(4, 10)
    tokens = make_pass(batch[:, :-1], None).tokens
    assert tokens._base is None
    assert tokens.untyped_storage().nbytes() == tokens.numel() * tokens.element_size()


def test_lower_precision_is_proven_in_float32_and_the_official_plans_must_still_come_out_again() -> (
    None
):
    honest = proof_of(build(Gate), dtype=torch.bfloat16)
    assert honest.passed, honest.detail
    assert proof_of(build(FirstCallsOnly), dtype=torch.bfloat16).detail.startswith(
        "Official evaluation: only"
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [("mod", {}), ("adaptive_moe", {}), ("smear", {}), ("dense", {})],
    ids=row_id,
)
def test_routers_of_every_kind_are_causal_in_low_precision(
    name: str, options: Mapping[str, object]
) -> None:
    found = proof_of(with_knobs(model(name, options), 0.1), dtype=torch.bfloat16)
    assert found.passed, found.detail


def test_a_leak_in_low_precision_alone_is_found_there() -> None:
    assert proof_of(build(InLowPrecision)).passed
    found = proof_of(build(InLowPrecision), dtype=torch.bfloat16)
    assert found.detail.startswith(
        "Suffix perturbation in the precision of the run, all paths run in full: a weight of layer 1 differs"
    )


def test_few_windows_and_small_batches_will_do() -> None:
    found, held_out = build(Gate), windows(6)
    official = evaluate(found, held_out, 10, keep=True)
    assert prove(found.decoder, held_out, official, 0, 10, torch.float32).passed


def forged(change: Callable[[Evaluation], None]) -> str:
    found, held_out = build(Gate), windows(48)
    official = evaluate(found, held_out, BATCH_SIZE, keep=True)
    change(official)
    return prove(found.decoder, held_out, official, 0, BATCH_SIZE, torch.float32).detail


def test_an_official_evaluation_that_does_not_repeat_is_refused() -> None:
    def better(official: Evaluation) -> None:
        official.nats *= 0.999

    def other(official: Evaluation) -> None:
        official.masks[2] = ~official.masks[2]

    assert forged(better).startswith("Official evaluation: the loss differs")
    assert forged(other).startswith("Official evaluation: the plan of layer 3 differs")


def test_a_leak_makes_the_record_of_a_cell_invalid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a router that was let in: its own check would have found it."""
    monkeypatch.setattr("bench.runner.run_cell.checks_of", lambda *_: ())
    plugin = tmp_path / "leaky.py"
    plugin.write_text(
        """
import torch
from bench.routing.contract import experts, Router, RoutingPlan
from bench.routing.registry import register

@register("leaky_hash", family="test")
class Leaky(Router):
    paths = experts(2)

    def forward(self, inputs):
        following = inputs.tokens.roll(-1, 1) % 2
        return RoutingPlan(torch.stack((following == 0, following == 1), -1))
""",
        encoding="utf-8",
    )
    config = suite(write_text(tmp_path))
    with own_registry():
        record = run_cell(
            resolve(Cell(config, config.row("leaky_hash"), 0, (plugin,))), "test", Path()
        )
    assert record.status == "invalid"
    assert record.causality is not None and not record.causality.passed
    assert record.reason == record.causality.detail
    assert record.reason.startswith("Suffix perturbation: the plan of layer 1 differs")
