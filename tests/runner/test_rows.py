"""Rows of a run: names are found or refused before the first cell."""

import pytest

from bench.config.read_suite import parse_suite
from bench.errors import UserError
from bench.routing.load_routers import find
from bench.runner.rows import parse_rows, unmet_needs
from tests.runner.suites import SUITE


def test_a_weight_of_a_loss_that_no_router_has_is_an_error_in_one_line() -> None:
    train = {"reference_tokens": 100, "router": {"losses": {"router_y": 0.1}}}
    with pytest.raises(
        UserError,
        match=r"^Unknown auxiliary loss 'router_y'. Did you mean 'router_z'\? Available: .*\S$",
    ):
        parse_rows(parse_suite({**SUITE, "train": train}, "s"), "all")
    own = {"name": "mod", "training": {"losses": {"centre": 0.1}}}
    assert parse_rows(parse_suite({**SUITE, "rows": [own]}, "s"), "all")
    with pytest.raises(UserError, match="Unknown auxiliary loss 'centre'"):
        parse_rows(parse_suite({**SUITE, "rows": [{**own, "name": "mlp_gate"}, "mod"]}, "s"), "all")
    suite_wide = {**train, "router": {"losses": {"centre": 0.1, "load": 0.1}}}
    assert parse_rows(
        parse_suite({**SUITE, "train": suite_wide, "rows": ["mlp_gate", "mod"]}, "s"), "mlp_gate"
    )


@pytest.mark.usefixtures("forked")
def test_rows_of_a_list_of_names() -> None:
    suite = parse_suite(SUITE, "s")
    assert [row.name for row in parse_rows(suite, "all").rows] == ["mlp_gate", "random@ffn"]
    beside = parse_rows(suite, "mod,all,mlp_gate")
    assert [row.name for row in beside.rows] == ["mod", "mlp_gate", "random@ffn"]
    assert [
        (row.name, row.router, row.role) for row in parse_rows(suite, " mod ,random@ffn").rows
    ] == [
        ("mod", "mod", "ranked"),
        ("random@ffn", "random", "control"),
    ]
    for wrong in ("", " , ", "mlp_gat", "mod,nothing"):
        with pytest.raises(UserError):
            parse_rows(suite, wrong)


@pytest.mark.usefixtures("forked")
def test_a_run_without_a_row_that_can_run_is_refused_with_the_reasons() -> None:
    rows = parse_rows(parse_suite(SUITE, "s"), "mod,hash")
    assert [row.name for row in rows.without({"mod": "no block"}).rows] == ["hash"]
    with pytest.raises(UserError, match=r"^No row can run \(mod: no block; hash: no table\)\."):
        rows.without({"mod": "no block", "hash": "no table"})


def test_a_variant_that_the_suite_does_not_list_is_refused_with_the_nearest_name() -> None:
    suite = parse_suite(SUITE, "s")
    for name, near in (("random@block", "random@ffn"), ("mlp_gate@reinforce", "mlp_gate")):
        with pytest.raises(UserError) as told:
            parse_rows(suite, f"mlp_gate,{name}")
        assert str(told.value).startswith(f"Unknown row {name!r}. Did you mean {near!r}?")


def test_a_router_by_received_attention_needs_a_layer_before_the_first_routed_one() -> None:
    card = find("attention_mod").describe({})
    assert "routes layer 0" in unmet_needs(card, 2, first_layer=0)
    assert not unmet_needs(card, 2, first_layer=1)
    assert not unmet_needs(find("mod").describe({}), 2, first_layer=0)
