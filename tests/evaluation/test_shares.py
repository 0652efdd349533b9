"""Layers and paths are evaluated at the shares they were trained at, in whole cells of plugins."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench.evaluation.shares import LEAST_STEPS, SHARE_TOLERANCE, moved_shares
from bench.record import LayerMonitor, Record
from bench.routing.contract import Router, RouterSpec
from bench.routing.paths import FFN_GATE, Paths, Site, experts
from bench.runner.cells import Cell
from bench.runner.resolve import resolve
from bench.runner.run_cell import run_cell
from bench.training.task import Trained
from tests import world

PLUGIN = Path(__file__).resolve().parent.parent / "gallery" / "own_shares.py"
NAMES = ("leaves_early", "exits_unsaid", "skip_experts", "staged_mode")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Record]:
    folder = tmp_path_factory.mktemp("text")
    evaluation = {"calibration_windows": 24, "validation_windows": 24, "probe_windows": 2}
    suite = world.suite(
        world.write_text(folder),
        train={"reference_tokens": 14_000, "batch_size": 4, "probes": 2},
        evaluation={**evaluation, "sweep": [0.97, 1.03], "tolerance": 0.02},
        routed_layers=[1, 2, 3],
        rows=list(NAMES),
    )
    with pytest.MonkeyPatch.context() as patch, world.own_registry():
        patch.setenv("TOKEN_ROUTING_BENCH_CACHE", str(folder / "cache"))
        patch.setattr("bench.runner.run_cell.checks_of", lambda *_: ())  # tested on their own
        cells = [Cell(suite, row, 0, (PLUGIN,)) for row in suite.rows]
        return {cell.row.name: run_cell(resolve(cell), "test", folder) for cell in cells}


def sites(record: Record, name: str) -> list[LayerMonitor]:
    return [monitor for monitor in record.monitors if name in monitor.paths]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "exits_unsaid"])
def test_a_router_that_owns_its_shares_is_evaluated_as_it_was_trained(
    made: dict[str, Record], name: str
) -> None:
    record = made[name]
    assert (record.status, record.reason) == ("ok", "")
    assert record.training is not None and record.training.steps >= LEAST_STEPS
    assert record.budget is not None and record.budget.headline == "interpolated"
    for monitor in record.monitors:
        if monitor.paths[0] != "expert0":
            assert monitor.load == pytest.approx(monitor.trained_load, abs=0.06), monitor.layer


def test_shares_fall_with_depth_in_training_and_in_evaluation(made: dict[str, Record]) -> None:
    """At the ratios 1 : 0.75 : 0.5 that the plugin states.

    Within a token of a sequence of 32 in training, and the drift of thresholds in evaluation.
    """
    monitors = made["leaves_early"].monitors
    for name, near in (("trained_load", 1 / 32), ("load", 0.06)):
        first, *later = (getattr(monitor, name)[1] for monitor in monitors)
        assert 0.6 < first < 0.95
        assert later == pytest.approx([0.75 * first, 0.5 * first], abs=near)


def test_one_share_for_all_layers_is_refused_where_training_had_others(
    made: dict[str, Record],
) -> None:
    record = made["exits_unsaid"]
    assert record.status == "invalid"
    assert record.reason.startswith("Layer 1 sends 0.")
    assert "at the end of training; they may differ by 0.1." in record.reason
    assert "\n" not in record.reason


def test_a_skip_among_experts_is_no_expert(made: dict[str, Record]) -> None:
    """Half of the tokens take an expert, in training and in evaluation."""
    for monitor in made["skip_experts"].monitors:
        assert sum(monitor.trained_load[:4]) == 0.5
        assert sum(monitor.load[:4]) == pytest.approx(0.5, abs=0.03)


def test_two_sites_of_a_layer_have_a_trace_a_knob_and_a_charge_each(
    made: dict[str, Record],
) -> None:
    """The plans of a site inside a block are over all tokens, and none takes a path outside it."""
    record = made["staged_mode"]
    assert [monitor.layer for monitor in record.monitors] == [1, 1, 2, 2, 3, 3]
    for inside, block in zip(sites(record, "expert0"), sites(record, "block"), strict=True):
        assert sum(inside.load) == pytest.approx(block.load[1], abs=1e-6)
        assert sum(inside.trained_load) == pytest.approx(block.trained_load[1], abs=1e-6)
        assert inside.dropped == 0 and inside.entropy is not None
    assert record.passage is not None
    assert list(record.passage.choices) == ["1", "1 block", "2", "2 block", "3", "3 block"]


class Gate(Router):
    """Stands for its paths."""

    def __init__(self, paths: Paths, knob: Tensor | None = None) -> None:
        super().__init__()
        self.paths = paths
        self.knob = knob
        self.build(RouterSpec(8, paths, 0.5, 1.0, 1, 4, 50, 32, 1, 0))


BESIDE = Paths(Site.FFN, ("expert0", "expert1", "skip"))


@pytest.mark.parametrize(
    ("router", "trained", "found", "says"),
    [
        (Gate(FFN_GATE), (0.35, 0.65), (0.44, 0.56), ""),
        (Gate(FFN_GATE), (0.35, 0.65), (0.46, 0.54), "along 'cheap'"),
        (Gate(experts(2)), (0.9, 0.1), (0.1, 0.9), ""),
        (Gate(experts(2)), (0.5, 0.5), (0.6, 0.52), "along its experts"),
        (Gate(experts(2), torch.zeros(2)), (0.5, 0.5), (0.4, 0.6), ""),
        (Gate(experts(2), torch.zeros(2)), (0.5, 0.5), (0.39, 0.61), "along 'expert0'"),
        (Gate(BESIDE), (0.3, 0.3, 0.4), (0.1, 0.5, 0.4), ""),
        (Gate(BESIDE), (0.3, 0.3, 0.4), (0.3, 0.3, 0.6), "along 'skip'"),
        (Gate(experts(4)), (1.0, 1.0, 1.0, 1.0), (0.9, 0.9, 0.9, 0.95), ""),
        (Gate(experts(4)), (1.0, 1.0, 1.0, 1.0), (0.9, 0.9, 0.9, 0.85), "its experts"),
        (Gate(FFN_GATE), (), (0.0, 1.0), ""),
    ],
)
def test_what_counts_together_and_how_far_it_may_move(
    router: Gate, trained: tuple[float, ...], found: tuple[float, ...], says: str
) -> None:
    seen = {0: found}
    said = moved_shares([router], Trained(LEAST_STEPS, shares=[list(trained)]), seen)
    assert says in said and bool(said) == bool(says)
    assert not moved_shares([router], Trained(LEAST_STEPS - 1, shares=[list(trained)]), seen)
    assert SHARE_TOLERANCE == 0.1
