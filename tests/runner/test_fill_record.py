"""The FLOPs of a record, against figures written out by hand."""

from pathlib import Path

import pytest

from bench.backbone.presets import PRESETS
from bench.record import Record
from bench.runner.cells import Cell
from bench.runner.resolve import resolve
from bench.runner.run_cell import run_cell
from tests import world

SEQ, VOCAB, ROUTED, DOMAINS, WINDOWS = 32, 256, 2, 2, 4
D, LAYERS, FFN, RANK = (
    PRESETS["tiny"][name] for name in ("d_model", "num_layers", "ffn_width", "cheap_rank")
)
PAIR = 2 * 2 * D
"""A score and a weighted value for a pair of tokens."""
DENSE = 2 * D * VOCAB + LAYERS * (4 * 2 * D * D + PAIR * (SEQ + 1) / 2 + 3 * 2 * D * FFN)
HALF = DENSE - ROUTED * 3 * 2 * D * FFN / 2
"""Half of the routed layers' full paths are paid for."""


def newton_schulz(rows: int, columns: int, steps: int = 5) -> int:
    """Three products a step.

    X Xt, its square, and a polynomial of it times X, with rows <= columns.
    """
    rows, columns = sorted((rows, columns))
    return steps * (2 * 2 * rows * rows * columns + 2 * rows**3)


ORTHOGONALISED = LAYERS * (
    4 * newton_schulz(D, D) + 3 * newton_schulz(D, FFN)
) + ROUTED * 2 * newton_schulz(D, RANK)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Record]:
    folder = tmp_path_factory.mktemp("text")
    rows = ["mlp_gate", "dense_matched", {"name": "dense", "role": "bracket"}]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKEN_ROUTING_BENCH_CACHE", str(folder / "cache"))
        suite = world.suite(world.write_text(folder), rows=rows)
        return {
            row.name: run_cell(resolve(Cell(suite, row, 0)), "test", Path()) for row in suite.rows
        }


def test_what_a_token_costs_is_told_in_three_ways(made: dict[str, Record]) -> None:
    """Over causal pairs; as executed, over all pairs.

    And with every routed site on its full path.
    """
    for name, active, tolerance in (
        ("dense", DENSE, 1e-5),
        ("mlp_gate", HALF, 0.2),
        ("dense_matched", HALF, 0.01),
    ):
        flops = made[name].flops
        assert flops is not None and flops.dense == DENSE
        assert flops.active == pytest.approx(active, rel=tolerance)
        assert flops.executed - flops.active == pytest.approx(LAYERS * PAIR * (SEQ - 1) / 2)


def test_orthogonalisation_and_evaluation_are_shown_and_not_charged(
    made: dict[str, Record],
) -> None:
    for name, record in made.items():
        flops, training = record.flops, record.training
        assert flops is not None and training is not None
        if name != "dense_matched":  # the width of its FFN is its own
            assert flops.optimizer == training.steps * ORTHOGONALISED
        assert flops.training_total == pytest.approx(sum(flops.training.values()))
        assert not [part for part in flops.training if part.startswith(("optimizer", "evaluation"))]
    dense = made["dense"].flops
    assert dense is not None
    tokens = dense.evaluation / dense.active
    assert tokens == pytest.approx(round(tokens), abs=1e-6)
    assert tokens >= DOMAINS * WINDOWS * SEQ
    gate = made["mlp_gate"].flops
    assert gate is not None and gate.evaluation > dense.evaluation, "calibration is evaluation too"


def test_training_stops_at_the_budget(made: dict[str, Record]) -> None:
    """Three times B on as many tokens as the suite says, exceeded by less than one step."""
    budget = 3 * HALF * 1024
    batch = 4 * SEQ
    for name in ("mlp_gate", "dense_matched"):
        flops, training = made[name].flops, made[name].training
        assert flops is not None and training is not None
        assert flops.training_budget == pytest.approx(budget, rel=0.01)
        assert (
            flops.training_budget
            <= flops.training_total
            < flops.training_budget * (1 + 1.5 / training.steps)
        )
        assert training.tokens == training.steps * batch
