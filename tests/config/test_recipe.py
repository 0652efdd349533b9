"""The training recipes: their bounds, and their form in content keys."""

from typing import Any

import pytest
from pydantic import ValidationError

from bench.config.recipe import PretrainConfig, TrainConfig


@pytest.mark.parametrize(
    "wrong",
    [{"reference_tokens": 0}, {"warmup": 1.5}, {"probes": 1}, {"adam_lr": 0}, {"batch": 8}],
)
def test_a_recipe_refuses_values_that_train_nothing(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        TrainConfig.model_validate({"reference_tokens": 1} | wrong)


def test_pretraining_needs_its_tokens() -> None:
    with pytest.raises(ValidationError, match="tokens"):
        PretrainConfig.model_validate({})


def test_a_later_field_is_in_keys_only_where_it_is_set() -> None:
    old, new = (TrainConfig(reference_tokens=1, muon_dtype=t) for t in ("float32", "bfloat16"))
    assert "muon_dtype" not in old.canonical()
    assert new.canonical()["muon_dtype"] == "bfloat16"
