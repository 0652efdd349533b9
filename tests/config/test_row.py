"""Rows: a name stands for a router, and each option of training has its range."""

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
