"""Shares and costs of training, from charges that can be added by hand."""

import pytest

from bench.record import Record
from bench.study.readings import ideal_cost, mean_of, share_of, training_cost
from tests.board.synthetic import QUICK, record

GATE = next(kind for kind in QUICK if kind.row == "mlp_gate")


def with_flops(**parts: float) -> Record:
    whole = record(GATE, 0)
    assert whole.flops and whole.training
    named = {name.replace("_", "/"): flops for name, flops in parts.items()}
    flops = whole.flops.model_copy(
        update={"training": named, "training_total": sum(named.values()), "dense": 10.0}
    )
    return whole.model_copy(
        update={"flops": flops, "training": whole.training.model_copy(update={"tokens": 100})}
    )


def test_training_cost_of_a_full_model_is_one() -> None:
    joint = with_flops(
        backbone_forward=600, paths_forward=400, backbone_backward=1200, paths_backward=800
    )
    frozen = with_flops(
        backbone_forward=600, paths_forward=400, backbone_backward=300, paths_backward=400
    )
    for full in (joint, frozen):
        assert training_cost(full) == pytest.approx(1.0)


def test_oracle_labels_are_a_part_of_training_cost() -> None:
    made = with_flops(
        backbone_forward=600,
        paths_forward=400,
        backbone_backward=1200,
        paths_backward=800,
        oracle_forward=1500,
    )
    assert training_cost(made) == pytest.approx(1.5)
    assert share_of("oracle")(made) == pytest.approx(1500 / 4500)


def test_the_ideal_cost_replaces_the_passes_by_those_of_evaluation() -> None:
    """Of 4500 FLOPs, 3000 are passes at the dense cost of 10 FLOPs a token; labels stay."""
    made = with_flops(
        backbone_forward=600,
        paths_forward=400,
        backbone_backward=1200,
        paths_backward=800,
        oracle_forward=1500,
    )
    assert made.flops is not None
    active = made.flops.model_copy(update={"active": 6.0})
    assert ideal_cost(made.model_copy(update={"flops": active})) == pytest.approx(0.5 + 0.6)


def test_a_mean_is_over_the_values_that_exist() -> None:
    assert mean_of([1.0, None, float("nan"), 3.0]) == 2.0
    assert mean_of([None]) is None
