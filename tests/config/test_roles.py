"""Names in a suite select rows; the role of a row is declared, not part of its name."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.config.read_suite import load_suite, parse_suite
from bench.config.roles import matched_row, twin_original
from bench.config.row import RowConfig
from bench.errors import UserError
from bench.study.read_study import load_study, study_names, suites_of

SUITE: dict[str, Any] = {
    "name": "s",
    "purpose": "p",
    "backbone": "tiny",
    "routed_layers": [1, 2],
    "seq_len": 32,
    "train": {"reference_tokens": 100},
    "rows": ["mlp_gate", {"name": "chance", "router": "random", "role": "control"}],
}
TWIN = {"name": "mlp_gate@copy", "role": "twin", "router_seed": 1}


def with_rows(*rows: Any, **changes: Any) -> dict[str, Any]:
    return {**SUITE, "rows": [*SUITE["rows"], *rows], **changes}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (with_rows({"name": "mod", "control": "chnace"}), "Unknown control 'chnace'. Did you mean"),
        (with_rows({**TWIN, "router_seed": 0}), "'mlp_gate@copy' is a twin of no row"),
        (
            with_rows({**TWIN, "router_seed": 0, "router_seeds": [1, 0]}),
            "'mlp_gate@copy' is a twin of no row",
        ),
        (with_rows({**TWIN, "options": {"hidden": 8}}), "is a twin of no row"),
        (with_rows(TWIN, {"name": "again", "router": "mlp_gate"}), "twin of mlp_gate or again"),
        (with_rows({**TWIN, "twin_of": "mlp_gat"}), "Unknown row 'mlp_gat'. Did you mean"),
        (with_rows({**TWIN, "role": "ranked", "twin_of": "mlp_gate"}), "Give it `role: twin`"),
        (with_rows("mlp_gate@lr2", sensitivity={"lr_scales": [2.0]}), "'mlp_gate@lr2' has the"),
    ],
)
def test_a_name_that_stands_for_no_row_or_for_two_is_refused(
    data: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError) as told:
        parse_suite(data, "own.yaml")
    assert str(told.value).startswith("Suite 'own.yaml': ") and said in str(told.value)
    assert "\n" not in str(told.value)


def test_a_twin_repeats_the_row_of_its_router_whatever_its_name() -> None:
    rows = [RowConfig.model_validate(row) for row in ("mod", "mlp_gate@lr2", TWIN)]
    assert twin_original(rows[2], rows) == "mlp_gate@lr2"
    slower = RowConfig.model_validate({"name": "slow", "router": "mlp_gate", "lr_scale": 0.5})
    copy = rows[2].model_copy(update={"lr_scale": 0.5})
    assert twin_original(copy, [*rows, slower]) == "slow"
    assert twin_original(copy.model_copy(update={"twin_of": "mod"}), rows) == "mod"


def test_the_unrouted_control_is_the_declared_row_or_the_only_one(tmp_path: Path) -> None:
    narrow = {"role": "control", "router": "dense_matched"}
    assert matched_row("dense_matched", {"narrow": narrow}) == "narrow"
    assert matched_row("dense_matched", {"narrow": narrow, "dense_matched": {}}) == "dense_matched"
    assert matched_row("dense_matched", {"a": narrow, "b": narrow}) == "dense_matched"
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({**SUITE, "comparison": {"dense_matched": "narow"}}))
    with pytest.raises(UserError, match="Unknown row 'narow'"):
        load_suite(str(path))


def test_every_shipped_study_keeps_to_names_that_there_are() -> None:
    for name in study_names():
        study = load_study(name)
        assert all(suites_of(study, size) for size in study.sizes.values())
