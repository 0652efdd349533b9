"""A resolved cell: every number that can move is in its key, and nothing else."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

import bench.runner.resolve
from bench.config.base import Part
from bench.config.read_suite import load_suite, parse_suite
from bench.config.row import RouterTraining, RowConfig
from bench.config.suite import SuiteConfig
from bench.model.assemble import assemble
from bench.record import read_record
from bench.routing.fingerprint import stored_fingerprints
from bench.routing.load_routers import find, load_file
from bench.routing.registry import Entry
from bench.runner.cells import Cell, plan_cells
from bench.runner.provenance import THREADS, machine_of
from bench.runner.resolve import NOT_NUMERICS, config_hash, content_key, resolve
from tests import world
from tests.runner.suites import SUITE

ROOT = Path(__file__).parents[2]

MACHINE: dict[str, Any] = {
    "device": "cpu",
    "threads": 1,
    "dtype": "float32",
    "versions": {"torch": "2.13", "python": "3.11"},
}

NOT_IN_THE_KEY = {
    "plugins": "where routers are looked for; the router's source is in the key",
    "purpose": "prose",
    "seeds": "how many cells there are; each cell's seed is in its key",
    "rows": "which cells there are; each cell's row is in its key",
    "comparison": "judges records, after the runs",
    "sensitivity": "which further cells there are; their learning rate is in their row",
    "data": "where the text lies; the text itself is in the key",
    "thresholds": "read off the curve by the board",
}
"""Fields of a suite that no number in a cell depends on, and why."""

CHANGES: dict[str, Any] = {
    "name": "t",
    "plugins": ["mine.py"],
    "purpose": "q",
    "backbone": "30m",
    "routed_layers": [1],
    "seq_len": 33,
    "budget": 0.4,
    "match": "tokens",
    "seeds": 4,
    "device": "cuda",
    "dtype": "bfloat16",
    "compile": True,
    "qk_gain": True,
    "parallel": "fsdp",
    "ranks": 2,
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
        "muon_dtype": {"muon_dtype": "bfloat16"},
        "router": {
            "noise": {"noise": "gaussian"},
            "noise_scale": {"noise": "gaussian", "noise_scale": 0.1},
            "curriculum": {"curriculum": {"window": 9}},
        },
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


def test_the_number_of_a_gpu_is_not_in_the_key() -> None:
    def key_and_hash(device: str) -> tuple[str, str]:
        suite = parse_suite({**SUITE, "device": device}, "s")
        cell = Cell(suite, suite.rows[0], 0)
        return content_key(cell, "router", "data", MACHINE), config_hash(cell)

    assert key_and_hash("cuda:1") == key_and_hash("cuda:0") == key_and_hash("cuda")
    assert not {*key_and_hash("cuda")} & {*key_and_hash("cpu")}


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
    cell = Cell(suite, suite.rows[0].model_copy(update=row or {}), seed)
    return content_key(cell, "identity", data, {**MACHINE, **machine})


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
    """Budget, match and name are no fields of the rest, since a bracket's match is its own.

    The tests above find them in the key.
    """
    assert set(NOT_NUMERICS) - {"budget", "match", "name"} == set(NOT_IN_THE_KEY)


CALLED: dict[str, Any] = {"control": "random@ffn", "twin_of": "mod"}
RUN: dict[str, Any] = {
    "name": "renamed",
    "router": "mod",
    "options": {"width_ratio": 0.5},
    "role": "bracket",
    "training": RouterTraining(),
    "lr_scale": 2.0,
    "router_seed": 1,
    "router_seeds": (0, 2),
}


@pytest.mark.parametrize("field", RowConfig.model_fields)
def test_a_row_is_what_it_runs_and_its_name_and_not_its_control(field: str) -> None:
    assert (key(row={field: {**CALLED, **RUN}[field]}) == key()) == (field in CALLED)


def test_a_replica_has_the_key_of_a_row_with_its_router_seed_alone() -> None:
    """So records from before a row had several router seeds are found again."""
    several = parse_suite({**SUITE, "rows": [{"name": "mlp_gate", "router_seeds": [0, 2]}]}, "s")
    cells = plan_cells(several, several.rows, [5])
    found = [content_key(cell, "identity", "d", MACHINE) for cell in cells]
    assert found == [key(seed=5), key(seed=5, row={"router_seed": 2})]
    assert [cell.replica for cell in cells] == [0, 1]


def test_the_board_of_planted_depth_keeps_its_records() -> None:
    """Those of the first ten tasks are the first router seeds of today's rows."""
    suite = load_suite("planted-depth")
    for row in suite.rows:
        first = ROOT / "results/planted-depth" / row.name / "b50-flops/seed-0.json"
        if first.exists():  # a row that was added later has none
            assert read_record(first).row == row.replicas()[0], row.name
    learned = [len(row.replicas()) for row in suite.rows if row.router == "mlp_gate"]
    assert learned == [3, 3, 3]


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
    rules = bench.runner.resolve.RULES_VERSION
    monkeypatch.setattr(bench.runner.resolve, "RULES_VERSION", rules + 1)
    found.append(key())
    assert len(set(found)) == len(found)


def test_the_machine_is_what_it_is() -> None:
    machine = machine_of(torch.device("cpu"), "float32")
    assert (
        machine["device"] == "cpu"
        and machine["threads"] == THREADS
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
from bench.routing import FFN_GATE, Router
from bench.routing.registry import register

@register("keyed", family="tests")
class Keyed(Router):
    '''{remark}'''
    paths = FFN_GATE
"""


def test_the_source_of_a_plugin_as_it_was_loaded_identifies_it(tmp_path: Path) -> None:
    found: list[str] = []
    for remark in ("one", "two"):
        with world.own_registry():
            file = tmp_path / f"{remark}.py"
            file.write_text(PLUGIN.format(remark=remark), encoding="utf-8")
            source = file.read_bytes()
            (entry,) = load_file(file)
            file.write_text("changed while the run goes on", encoding="utf-8")
            assert entry.plugin_hash == hashlib.sha256(source).hexdigest()
            found.append(entry.identity({}, {}))
    assert found[0] != found[1]


def test_a_shipped_router_is_identified_by_its_numerics() -> None:
    """An edited comment changes its source, and none of its numbers."""
    entry = find("mlp_gate")
    edited = replace(entry)
    object.__setattr__(edited, "plugin_hash", "of an edited file")
    assert edited.identity({}, {}) == entry.identity({}, {})
    wide = {"width_ratio": 0.5}
    stored = stored_fingerprints()
    moved = {**stored, "routers": {**stored["routers"], "mlp_gate": {"losses": [1.0]}}}
    with patch("bench.routing.fingerprint.stored_fingerprints", lambda: moved):
        assert entry.identity({}, {}) != find("mod").identity({}, {})
        changed = entry.identity(wide, {})
    assert changed != entry.identity(wide, {})


def test_a_cell_is_resolved_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One look at the router, the text and the key; the shares add one, each layer two."""
    made: list[str] = []
    make = Entry.make
    monkeypatch.setattr(
        Entry, "make", lambda self, options: made.append(self.name) or make(self, options)
    )
    monkeypatch.setenv("TOKEN_ROUTING_BENCH_CACHE", str(tmp_path / "cache"))
    resolved = resolve(world.cell(world.write_text(tmp_path)))
    assert len(made) == 1
    assemble(resolved.blueprint(), 0)
    assert len(made) == 2 + 2 * len(resolved.cell.suite.routed_layers)
