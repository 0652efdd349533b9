"""Suites: rows that are allowed, and rows that are refused by name."""

from typing import Any

import pytest
import torch

from bench.backbone.decoder import Decoder
from bench.backbone.presets import decoder_config
from bench.config.read_suite import load_suite, parse_suite
from bench.config.row import RowConfig
from bench.errors import UserError
from tests.config.suites import SUITE

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"budget": 1}, "field 'budget': Input should be less than 1 (got '1')"),
    ({"budget": float("nan")}, "field 'budget'"),
    ({"budget": "half"}, "field 'budget'"),
    ({"seq_len": 1}, "field 'seq_len': Input should be greater than 1"),
    ({"sed_len": 5}, "Unknown field 'sed_len'. Did you mean 'seq_len'?"),
    ({"train": {}}, "field 'train.reference_tokens': Field required"),
    (
        {"train": {"reference_tokens": 5, "lr": 1}},
        "Unknown field 'train.lr'. Did you mean 'train.muon_lr'?",
    ),
    ({"routed_layers": []}, "field 'routed_layers'"),
    ({"ranks": 3}, "train.batch_size is 16; 3 ranks take equal parts"),
    ({"ranks": 2, "device": "cuda:1"}, "device is 'cuda:1'; each rank takes the GPU"),
    (
        {"ranks": 2, "regime": "controller", "pretrain": {"tokens": 9}},
        "the regime 'controller' takes 1",
    ),
    ({"routed_layers": [2, 1]}, "must be ascending"),
    ({"routed_layers": [1, 1]}, "without repeats"),
    ({"routed_layers": [-1]}, "routed_layers is [-1]; layers count from 0"),
    ({"routed_layers": [-3, 1]}, "routed_layers is [-3, 1]; layers count from 0"),
    *(
        (
            {"comparison": {"looks": looks}},
            f"field 'comparison': looks is {looks}; give",
        )
        for looks in ([1], [3, 3], [2, 999])
    ),
    ({"comparison": {"alpha": 1e-300}}, "field 'comparison.alpha'"),
    ({"rows": []}, "field 'rows'"),
    ({"rows": ["a", "a"]}, "['a'] twice"),
    ({"rows": [{"name": "../up"}]}, "field 'rows.0.name'"),
    ({"rows": [{"name": "a", "role": "best"}]}, "field 'rows.0.role'"),
    ({"name": "Has Spaces"}, "field 'name'"),
    ({"match": "time"}, "field 'match'"),
    ({"data": {"tokenizer": "words"}}, "field 'data.tokenizer'"),
    ({"dtype": "float64"}, "field 'dtype'"),
]


def test_a_row_may_be_its_name() -> None:
    assert RowConfig.model_validate("top2_moe@wide").router == "top2_moe"
    assert RowConfig.model_validate({"name": "a@b", "router": "c"}).router == "c"
    suite = parse_suite(SUITE, "s")
    assert suite.row("random@ffn").options == {"over": "ffn"}
    assert suite.row("mod") == RowConfig(name="mod", router="mod", role="ranked")


def test_a_suite_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse_suite(SUITE, "s").budget = 0.1


@pytest.mark.parametrize(("change", "said"), WRONG)
def test_a_wrong_field_is_named_with_its_value(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as told:
        parse_suite({**SUITE, **change}, "mine.yaml")
    assert (
        said in str(told.value) and "'mine.yaml'" in str(told.value) and "\n" not in str(told.value)
    )


def test_the_ladder_of_sizes_keeps_its_rule() -> None:
    """Tokens follow the parameters, AdamW's rate the width; the rows are the same."""
    first, *others = [load_suite(f"rung-{number}") for number in range(1, 5)]
    for suite in (first, *others):
        with torch.device("meta"):
            decoder = Decoder(decoder_config(suite.backbone, 257, suite.seq_len))
        config = decoder.config
        parameters = sum(p.numel() for p in decoder.parameters()) - 2 * 257 * config.d_model
        assert suite.train.reference_tokens / parameters == pytest.approx(8 / 3, rel=2e-3)
        assert suite.train.muon_lr == first.train.muon_lr
        assert suite.train.adam_lr == pytest.approx(
            first.train.adam_lr * (64 / config.d_model) ** 0.5, rel=3e-3
        )
        assert suite.rows == first.rows
