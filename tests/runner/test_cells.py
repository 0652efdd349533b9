import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

import bench.runner.cells
from bench.config.base import Part
from bench.config.load import parse_suite
from bench.config.suite import RouterTraining, RowConfig, SuiteConfig
from bench.errors import UserError
from bench.routing.registry import load_file
from bench.runner.cells import NOT_NUMERICS, Cell, parse_rows, plan_cells, sensitivity_cells
from bench.runner.provenance import machine_of
from tests import world

SUITE: dict[str, Any] = {
    "name": "s",
    "purpose": "p",
    "regime": "joint",
    "backbone": "tiny",
    "routed_layers": [1, 2],
    "seq_len": 32,
    "budget": 0.5,
    "match": "flops",
    "seeds": 3,
    "data": {},
    "train": {"reference_tokens": 100},
    "rows": [{"name": "mlp_gate"}, {"name": "random@ffn", "role": "control"}],
}
MACHINE: dict[str, Any] = {
    "device": "cpu",
    "threads": 1,
    "dtype": "float32",
    "versions": {"torch": "2.13", "python": "3.11"},
}

NOT_IN_THE_KEY = {
    "name": "of the suite; the same experiment in another suite is the same experiment",
    "purpose": "prose",
    "seeds": "how many cells there are; each cell's seed is in its key",
    "rows": "which cells there are; each cell's row is in its key",
    "comparison": "judges records, after the runs",
    "sensitivity": "which further cells there are; their learning rate is in their row",
    "thresholds": "read off the curve by the board",
}
"""Fields of a suite that no number in a cell depends on, and why."""

CHANGES: dict[str, Any] = {
    "name": "t",
    "purpose": "q",
    "backbone": "small",
    "routed_layers": [1],
    "seq_len": 33,
    "budget": 0.4,
    "match": "tokens",
    "seeds": 4,
    "device": "cuda",
    "dtype": "bfloat16",
    "compile": True,
    "thresholds": [1.0],
    "rows": [{"name": "mlp_gate"}],
}
"""Another value of each simple field; those of nested parts are changed by type below."""

NESTED: dict[str, dict[str, Any]] = {
    "data": {
        "source": {"source": "hub", "path": "a/b"},
        "path": {"path": "a.txt"},
        "name": {"name": "x"},
        "split": {"split": "x"},
        "revision": {"revision": "x"},
        "text_column": {"text_column": "x"},
        "domain_column": {"domain_column": "x"},
        "tokenizer": {"tokenizer": "bpe"},
        "vocab_size": {"tokenizer": "bpe", "vocab_size": 300},
        "tokenizer_file": {"tokenizer": "bpe", "tokenizer_file": "x.json"},
        "planted": {"planted": {"segments": 2}},  # of 16 tokens each: the 32 of the suite
    },
    "train": {
        "router": {
            "noise": {"noise": "gaussian"},
            "noise_scale": {"noise": "gaussian", "noise_scale": 0.1},
        }
    },
}


def other(value: Any) -> Any:
    """Another value of the same type, within every range there is."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 0.9 or 0.5
    if isinstance(value, tuple | list):
        return [*value, 7]
    if isinstance(value, dict):
        return {**value, "load_balance": 0.5}
    return 1 if value is None else f"{value}x"


def variants(part: Part, known: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Every way of changing one thing in a part: dotted name, and the data that say it."""
    found: list[tuple[str, dict[str, Any]]] = []
    for name in type(part).model_fields:
        value = getattr(part, name)
        if isinstance(value, Part):
            found += [
                (f"{name}.{inner}", {name: data})
                for inner, data in variants(value, known.get(name, {}))
            ]
        else:
            found.append((name, known.get(name) or {name: other(value)}))
    return found


def changed(field: str) -> list[tuple[str, SuiteConfig]]:
    """Every way of changing one thing in a field of the suite."""
    default = getattr(parse_suite(SUITE, "s"), field)
    if not isinstance(default, Part):
        return [(field, parse_suite({**SUITE, field: CHANGES[field]}, "s"))]
    base = SUITE.get(field, {})
    found = variants(default, NESTED.get(field, {}))
    return [
        (f"{field}.{name}", parse_suite({**SUITE, field: {**base, **data}}, "s"))
        for name, data in found
    ]


def test_the_pretraining_of_a_controller_suite_is_in_the_key() -> None:
    frozen = {**SUITE, "regime": "controller", "pretrain": {"tokens": 100}}
    before = parse_suite(frozen, "s")
    assert key(before) != key()
    assert before.pretrain is not None
    for name, data in variants(before.pretrain, {}):
        assert key(parse_suite({**frozen, "pretrain": {**frozen["pretrain"], **data}}, "s")) != key(
            before
        ), name


def key(
    suite: SuiteConfig | None = None,
    row: dict[str, Any] | None = None,
    seed: int = 0,
    data: str = "d",
    **machine: Any,
) -> str:
    suite = suite or parse_suite(SUITE, "s")
    return Cell(suite, suite.rows[0].model_copy(update=row or {}), seed).key(
        data, {**MACHINE, **machine}
    )


FIELDS = sorted(
    set(SuiteConfig.model_fields) - {"regime", "pretrain"}
)  # they go together, and are tested apart


@pytest.mark.parametrize("field", FIELDS)
def test_each_field_of_a_suite_is_in_the_key_or_listed_with_a_reason(field: str) -> None:
    before = parse_suite(SUITE, "s")
    for name, suite in changed(field):
        assert suite.canonical() != before.canonical(), f"{name} was not changed"
        assert (key(suite) == key()) == (field in NOT_IN_THE_KEY), name


def test_what_the_key_leaves_out_is_what_is_listed() -> None:
    """Budget and match are no fields of the rest, since a bracket's match is its own.

    The tests above find them in the key.
    """
    assert set(NOT_NUMERICS) - {"budget", "match"} == set(NOT_IN_THE_KEY)


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


CALLED: dict[str, Any] = {"name": "renamed", "control": "random@ffn"}
RUN: dict[str, Any] = {
    "router": "mod",
    "options": {"width_ratio": 0.5},
    "role": "bracket",
    "training": RouterTraining(),
    "lr_scale": 2.0,
    "router_seed": 1,
}


@pytest.mark.parametrize("field", RowConfig.model_fields)
def test_a_row_is_what_it_runs_and_not_what_it_is_called(field: str) -> None:
    assert (key(row={field: {**CALLED, **RUN}[field]}) == key()) == (field in CALLED)


def test_how_the_router_of_a_row_is_trained_is_in_the_key() -> None:
    known = NESTED["train"]["router"]
    found = variants(RouterTraining(), known)
    keys = {key(row={"training": RouterTraining.model_validate(data)}) for _, data in found}
    assert len(keys | {key(row={"training": RouterTraining()}), key()}) == len(found) + 2


def test_the_rest_is_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        key(),
        key(seed=1),
        key(data="other text"),
        key(device="cuda:NVIDIA H100"),
        key(threads=2),
        key(dtype="bfloat16"),
        key(versions={"torch": "2.14", "python": "3.11"}),
        key(versions={"torch": "2.13", "python": "3.12"}),
    ]
    monkeypatch.setattr(bench.runner.cells, "RULES_VERSION", bench.runner.cells.RULES_VERSION + 1)
    found.append(key())
    assert len(set(found)) == len(found)


def test_the_machine_is_what_it_is() -> None:
    machine = machine_of(torch.device("cpu"), "float32")
    assert (
        machine["device"] == "cpu"
        and machine["threads"] == torch.get_num_threads()
        and machine["dtype"] == "float32"
    )
    assert machine["versions"]["torch"] == torch.__version__ and set(machine["versions"]) == {
        "torch",
        "numpy",
        "python",
    }


def test_a_bracket_is_held_to_tokens_under_either_match() -> None:
    keys = {
        key(parse_suite({**SUITE, "match": match}, "s"), {"role": "bracket"})
        for match in ("flops", "tokens")
    }
    assert len(keys) == 1


PLUGIN = """
from bench.routing.contract import FFN_GATE, Router
from bench.routing.registry import register

@register("keyed", family="tests")
class Keyed(Router):
    '''{remark}'''
    paths = FFN_GATE
"""


def test_the_plugins_source_as_it_was_loaded_is_in_the_key(tmp_path: Path) -> None:
    suite = parse_suite({**SUITE, "rows": ["keyed"]}, "s")
    keys: list[str] = []
    for remark in ("one", "two"):
        with world.own_registry():
            file = tmp_path / f"{remark}.py"
            file.write_text(PLUGIN.format(remark=remark), encoding="utf-8")
            source = file.read_bytes()
            (entry,) = load_file(file)
            file.write_text("changed while the run goes on", encoding="utf-8")
            assert entry.plugin_hash == hashlib.sha256(source).hexdigest()
            keys.append(Cell(suite, suite.rows[0], 0).key("d", MACHINE))
    assert keys[0] != keys[1]


def test_rows_of_a_list_of_names() -> None:
    suite = parse_suite(SUITE, "s")
    assert [row.name for row in parse_rows(suite, "all")] == ["mlp_gate", "random@ffn"]
    assert [(row.name, row.router, row.role) for row in parse_rows(suite, " mod ,random@ffn")] == [
        ("mod", "mod", "ranked"),
        ("random@ffn", "random", "control"),
    ]
    for wrong in ("", " , ", "mlp_gat", "mod,nothing"):
        with pytest.raises(UserError):
            parse_rows(suite, wrong)


def test_cells_come_seed_by_seed() -> None:
    suite = parse_suite(SUITE, "s")
    assert list(map(str, plan_cells(suite, suite.rows, [0, 2]))) == [
        "mlp_gate seed 0",
        "random@ffn seed 0",
        "mlp_gate seed 2",
        "random@ffn seed 2",
    ]


def test_sensitivity_cells_vary_the_rate_of_every_row_but_twins_on_a_seed_of_their_own() -> None:
    rows = [
        "mlp_gate",
        {"name": "mlp_gate@twin", "role": "twin", "router_seed": 1},
        {"name": "hash", "lr_scale": 3.0},
    ]
    suite = parse_suite(
        {**SUITE, "rows": rows, "sensitivity": {"lr_scales": [0.5, 2.0], "seed": 77}}, "s"
    )
    cells = sensitivity_cells(suite, suite.rows, [Path("mine.py")])
    expected = {
        f"{row}@lr{scale:g}": base * scale
        for row, base in (("mlp_gate", 1.0), ("hash", 3.0))
        for scale in (0.5, 1.0, 2.0)
    }
    assert {cell.row.name: cell.row.lr_scale for cell in cells} == expected
    assert {(cell.seed, cell.plugin_files) for cell in cells} == {(77, ())}, (
        "no row of these needs the plugin"
    )
    assert sensitivity_cells(parse_suite(SUITE, "s"), suite.rows) == []
