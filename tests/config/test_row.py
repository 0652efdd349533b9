"""Rows: a name selects a router, and each option of training has its range."""

import pytest
from pydantic import ValidationError

from bench.config.row import RouterTraining, RowConfig


@pytest.mark.parametrize(
    ("given", "router"),
    [
        ("top2_moe@wide", "top2_moe"),
        ({"name": "a@b", "router": "c"}, "c"),
        ({"name": "a@b@c"}, "a"),
    ],
)
def test_the_router_is_the_part_of_the_name_before_the_sign(given: object, router: str) -> None:
    assert RowConfig.model_validate(given).router == router


def test_a_row_is_run_once_for_each_of_its_router_seeds() -> None:
    row = RowConfig.model_validate(
        {"name": "mlp_gate@twin", "role": "twin", "router_seeds": [1, 3]}
    )
    alone = [RowConfig(name="mlp_gate@twin", role="twin", router_seed=seed) for seed in (1, 3)]
    assert [one.canonical() for one in row.replicas()] == [one.canonical() for one in alone]
    assert alone[0].replicas() == (alone[0],)


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ({"router_seeds": [0, 2, 0]}, r"router_seeds is \[0, 2, 0\]; no number may occur twice"),
        ({"router_seeds": [1, 3], "router_seed": 1}, "router_seed is 1 and router_seeds is"),
        ({"router_seeds": [0, -1]}, "greater than or equal to 0"),
    ],
)
def test_router_seeds_that_are_not_clear_are_refused(seeds: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        RowConfig.model_validate({"name": "mlp_gate", **seeds})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"noise_scale": 0.1}, "noise is 'none'"),
        ({"noise": "jitter", "noise_scale": 1.5}, "must be below 1"),
        ({"expert_dropout": 1.0}, "less than 1"),
        ({"lr_ratio": 0}, "greater than 0"),
    ],
)
def test_training_that_means_nothing_is_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        RouterTraining.model_validate(options)
