"""Options in --routers."""

from pathlib import Path

import pytest

from bench.errors import UserError
from bench.runner.rows import parse_rows
from tests.world import suite


def test_options_follow_the_name_of_a_row() -> None:
    parsed = parse_rows(suite(Path("x.jsonl")), "mlp_gate:width_ratio=0.5,mlp_gate,hash")
    assert [(row.name, row.router, row.options) for row in parsed.rows] == [
        ("mlp_gate@width_ratio=0.5", "mlp_gate", {"width_ratio": 0.5}),
        ("mlp_gate", "mlp_gate", {}),
        ("hash", "hash", {}),
    ]
    (row,) = parse_rows(suite(Path("x.jsonl")), "random@ffn:over=block").rows
    assert (row.name, row.options) == ("random@ffn@over=block", {"over": "block"})


@pytest.mark.parametrize(
    ("routers", "said"),
    [
        ("mlp_gate:width_ratoi=0.5", "Did you mean 'width_ratio'"),
        ("mlp_gate:width_ratio", "'width_ratio' sets no option"),
        ("mlp_gate:", "'' sets no option"),
        ("mlp_gate:width_ratio=1:width_ratio=2", "sets 'width_ratio' twice"),
        ("mlp_gate:width_ratio={", "not valid YAML"),
        ("mlp_gate:width_ratio=-1", "refused the options"),
        ("mlp_gate:width_ratio=wide", r"By default they are width_ratio=\d"),
    ],
)
def test_odd_options_are_refused(routers: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse_rows(suite(Path("x.jsonl")), routers)
