"""The proof of causality.

Honest routers pass it, and every way of looking ahead, sideways or back is found and named.
"""

import re
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.backbone.passes import make_pass
from bench.conformance.causality_proof import (
    TOLERANCE,
    TRIALS,
    Offence,
    PreciseProducts,
    Proof,
    _compare,
    prove,
)
from bench.data import Windows
from bench.evaluation.evaluate import evaluate
from bench.evaluation.headline import Visited, knobs_of, set_knobs
from bench.model.assemble import Model, assemble
from bench.record import Causality
from bench.rng import generator
from bench.routing.contract import Router
from bench.routing.registry import Entry
from bench.runner.cells import Cell
from bench.runner.resolve import resolve
from bench.runner.run_cell import run_cell
from tests.conformance.peekers import (
    BatchMates,
    BatchSize,
    BesideBudget,
    BlockTopK,
    Crowded,
    CrowdedBatch,
    Dice,
    FaintMean,
    FirstCallsOnly,
    FirstRow,
    Gate,
    InLowPrecision,
    Learns,
    Length,
    MeanSoFar,
    Memory,
    NextToken,
    Preview,
    RareLeak,
    RareOpening,
    RoundRobin,
    RunningMean,
    TopK,
    WeightOnly,
)
from tests.world import (
    SEQ_LEN,
    blueprint,
    model,
    own_registry,
    row_id,
    suite,
    trained_like,
    windows,
    write_text,
)

pytestmark = pytest.mark.usefixtures("full_proof")
BATCH_SIZE = 64


@pytest.mark.parametrize("size", [1.0, 171.0])
def test_what_counts_as_equal_grows_with_the_loss(size: float) -> None:
    """Rounding does: at a loss of 171 it is no look ahead."""
    loss, rows = torch.full((2, 3, 1), size), torch.arange(2)
    loss[0, 0] = 0.0  # which has no size of its own
    for share, differs in ((0.5, False), (3.0, True)):
        other = loss.clone()
        other[0, 0] += share * TOLERANCE * size
        with pytest.raises(Offence, match="sequence 0, position 0") if differs else nullcontext():
            _compare("Decoding", [("the loss", loss)], [("the loss", other)], rows, True, TOLERANCE)


def with_knobs(found: Model, value: float) -> Model:
    trained_like(found.decoder)
    for router in found.decoder.routers:
        if router.knob is not None:
            router.knob.fill_(value)
    return found


def visit(
    found: Model, held_out: Windows, dtype: torch.dtype = torch.float32, size: int = BATCH_SIZE
) -> Visited:
    return Visited(knobs_of(found.decoder), evaluate(found, held_out, size, dtype).nats)


def proof_of(found: Model, seed: int = 0, dtype: torch.dtype = torch.float32) -> Causality:
    held_out = windows(48)
    return prove(found.decoder, held_out, [visit(found, held_out, dtype)], seed, BATCH_SIZE, dtype)


def build(router: type[Router], seed: int = 0) -> Model:
    name = "mlp_gate" if router.paths.base else "top2_moe"
    entry = Entry("x", "test", "", router)
    return with_knobs(assemble(replace(blueprint(name), entry=entry), seed), 0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("name", "options"),
    [("mod", {}), ("adaptive_moe", {}), ("smear", {}), ("random", {"over": "ffn"}), ("dense", {})],
    ids=row_id,
)
def test_routers_of_every_kind_are_causal(
    name: str, options: Mapping[str, object], dtype: torch.dtype
) -> None:
    found = proof_of(with_knobs(model(name, options), -0.4 if name == "random" else 0.1), 0, dtype)
    assert found.passed, found.detail


@pytest.mark.parametrize("router", [Gate, MeanSoFar])
def test_an_honest_look_alike_passes_and_the_proof_says_its_power(router: type[Router]) -> None:
    found = proof_of(build(router))
    assert found.passed, found.detail
    power = re.search(r"(\d+) suffix trials .* 2% of trials with (\d+\.\d)%", found.detail)
    assert power is not None
    assert float(power[2]) == pytest.approx(100 * (1 - 0.98 ** int(power[1])), abs=0.05)
    assert found.trials == int(power[1]) == TRIALS


def test_precise_products_do_not_depend_on_their_shapes() -> None:
    noise = generator(0, "products")
    x, weight = (torch.randn(shape, generator=noise) for shape in ((64, 512), (512, 40)))

    def alone() -> torch.Tensor:
        return torch.cat([row @ weight for row in x.split(1)])

    assert not torch.equal(x @ weight, alone()), "or there is nothing to test on this machine"
    with PreciseProducts():
        assert torch.equal(x @ weight, alone())
        assert (x @ weight).dtype is torch.float32


@pytest.mark.parametrize(
    ("router", "says"),
    [
        (TopK, r"Suffix trial: the plan of layer 1 differs at sequence \d+, position \d+\."),
        (BlockTopK, "Suffix trial: the plan of layer 1 differs"),
        (WeightOnly, "Suffix trial: a weight of layer 1 differs"),
        (FaintMean, "Suffix trial: a weight of layer 1 differs"),
        (NextToken, "Suffix trial: the plan of layer 1 differs"),
        (Crowded, "Suffix trial: the plan of layer 1 differs"),
        (CrowdedBatch, "Batch mates: the plan of layer 1 differs"),
        (BatchMates, "Batch mates: the plan of layer 1 differs"),
        (FirstRow, "Batch mates: the plan of layer 1 differs"),
        (RoundRobin, r"Batch size \d+: the plan of layer 1 differs"),
        (BatchSize, "Batch size 5: the plan of layer 1 differs"),
        (Length, "Decoding: the plan of layer 1 differs"),
        (Dice, "Official evaluation: the loss differs"),
        (Memory, r"Official evaluation: the loss differs at sequence \d+, position 3"),
        (RunningMean, "Official evaluation: the loss differs"),
        (FirstCallsOnly, "Official evaluation: the loss differs"),
        (Learns, "State: a parameter or buffer changed"),
        (Preview, "Predictions"),
    ],
)
def test_a_peeker_is_found_and_the_first_offence_named(router: type[Router], says: str) -> None:
    found = proof_of(build(router))
    assert not found.passed
    assert re.match(says, found.detail), found.detail


@pytest.mark.parametrize("seed", range(3))
def test_the_offending_position_is_right(seed: int) -> None:
    """A router that reads one token ahead gives itself away at the last position before the cut,
    and nowhere earlier.
    """
    found = build(NextToken)
    named = re.search(r"sequence (\d+), position (\d+)", proof_of(found, seed).detail)
    assert named is not None
    proof = Proof(found.decoder, windows(48), generator(seed, "causality"), BATCH_SIZE)
    assert int(proof.cuts[int(named[1])]) == int(named[2])


def test_each_trial_changes_an_input_after_its_cut_and_cuts_stand_everywhere() -> None:
    proof = Proof(build(Gate).decoder, windows(48), generator(0, "causality"), BATCH_SIZE)
    differs = (proof.text != proof.changed)[:, :-1]
    assert differs.any(1).all()
    assert torch.equal(differs.long().argmax(1), proof.cuts + 1)
    assert set(proof.cuts.tolist()) == set(range(SEQ_LEN - 1))


@pytest.mark.slow
@pytest.mark.parametrize("router", [RareLeak, RareOpening])
def test_a_leak_in_two_per_cent_of_trials_is_found_with_the_probability_that_is_claimed(
    router: type[Router],
) -> None:
    missed = sum(proof_of(build(router), seed).passed for seed in range(25))
    assert missed <= 2


def sweep(found: Model) -> list[Visited]:
    visited: list[Visited] = []
    for value in (-0.2, 0.2, 0.05):
        set_knobs(found.decoder, [torch.tensor(value) for _ in found.decoder.routers])
        visited.append(visit(found, windows(48)))
    return visited


@pytest.mark.parametrize(
    ("router", "says"),
    [
        (BesideBudget, "Suffix trial at a knob setting near B: a weight of layer 1 differs"),
        (Gate, "256 suffix trials"),
    ],
)
def test_a_router_that_peeks_beside_the_budget_is_found(router: type[Router], says: str) -> None:
    found = build(router)
    before = knobs_of(found.decoder)
    proof = prove(found.decoder, windows(48), sweep(found), 0, BATCH_SIZE, torch.float32)
    assert proof.detail.startswith(says)
    assert before == knobs_of(found.decoder), "knobs are left as they were found"


@pytest.mark.parametrize("setting", [0, 2])
def test_a_loss_that_does_not_come_out_again_is_refused(setting: int) -> None:
    found = build(Gate)
    visited = sweep(found)
    visited[setting].nats[5, 3] += 1e-6
    proof = prove(found.decoder, windows(48), visited, 0, BATCH_SIZE, torch.float32)
    assert proof.detail == "Official evaluation: the loss differs at sequence 5, position 3."


def test_a_router_cannot_reach_the_targets_through_the_storage_of_its_tokens() -> None:
    batch = torch.arange(40).view(4, 10)
    tokens = make_pass(batch[:, :-1], None).tokens
    assert tokens._base is None
    assert tokens.untyped_storage().nbytes() == tokens.numel() * tokens.element_size()


def test_a_leak_in_low_precision_alone_is_found_there() -> None:
    assert proof_of(build(InLowPrecision)).passed
    found = proof_of(build(InLowPrecision), dtype=torch.bfloat16)
    assert found.detail.startswith("Suffix trial in bfloat16: a weight of layer 1 differs")


def test_few_windows_and_small_batches_will_do() -> None:
    found, held_out = build(Gate), windows(6)
    visited = [visit(found, held_out, size=10)]
    assert prove(found.decoder, held_out, visited, 0, 10, torch.float32).passed


def test_a_leak_makes_the_record_of_a_cell_invalid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a router that was let in: its own check would have found it."""
    monkeypatch.setattr("bench.runner.run_cell.checks_of", lambda *_: ())
    plugin = tmp_path / "leaky.py"
    plugin.write_text(
        """
import torch
from bench.routing import experts, Router, RoutingPlan
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
    assert record.reason.startswith("Suffix trial: the plan of layer 1 differs")
