from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.config.base import hash_of
from bench.config.load import load_suite, parse_suite, suite_names
from bench.config.suite import RowConfig, SuiteConfig
from bench.errors import UserError

SUITE: dict[str, Any] = {
    "name": "s",
    "purpose": "p",
    "backbone": "tiny",
    "routed_layers": [1, 2],
    "seq_len": 32,
    "train": {"reference_tokens": 100},
    "rows": ["mlp_gate", {"name": "random@ffn", "role": "control", "options": {"over": "ffn"}}],
}


@pytest.mark.parametrize("name", suite_names())
def test_the_suites_that_come_with_the_bench_are_sound(name: str) -> None:
    suite = load_suite(name)
    assert suite.name == name
    names = {row.name for row in suite.rows}
    assert {row.control for row in suite.rows} <= names | {""}
    assert suite.comparison.dense_matched in names


def test_quick_has_every_control_that_stays_on_every_board() -> None:
    rows = {row.name: row.role for row in load_suite("quick").rows}
    assert rows["dense"] == rows["cheap"] == "bracket"
    assert {"dense_matched", "random@ffn", "random@block", "random@experts"} <= {
        name for name, role in rows.items() if role == "control"
    }
    assert "twin" in rows.values()


def test_a_row_may_be_its_name() -> None:
    assert RowConfig.model_validate("top2_moe@wide").router == "top2_moe"
    assert RowConfig.model_validate({"name": "a@b", "router": "c"}).router == "c"
    suite = parse_suite(SUITE, "s")
    assert suite.row("random@ffn").options == {"over": "ffn"}
    assert suite.row("mod@x") == RowConfig(name="mod@x", router="mod", role="ranked")


def test_what_is_written_out_is_read_back() -> None:
    suite = parse_suite(SUITE, "s")
    again = parse_suite(suite.canonical(), "again")
    assert again == suite
    assert hash_of(again.canonical()) == hash_of(suite.canonical())


def test_the_hash_does_not_depend_on_the_order_of_keys() -> None:
    assert hash_of({"a": 1, "b": [1, {"c": 2, "d": 3}]}) == hash_of(
        {"b": [1, {"d": 3, "c": 2}], "a": 1}
    )
    assert hash_of({"a": 1}) != hash_of({"a": 1.5})


def test_a_suite_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse_suite(SUITE, "s").budget = 0.1


def test_overrides_replace_fields_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(SUITE), encoding="utf-8")
    assert (load_suite(str(path)).budget, load_suite(str(path), {"budget": 0.25}).budget) == (
        0.5,
        0.25,
    )


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
    ({"routed_layers": [2, 1]}, "must be ascending"),
    ({"routed_layers": [1, 1]}, "without repeats"),
    ({"routed_layers": [-1]}, "routed_layers is [-1]; layers count from 0"),
    ({"routed_layers": [-3, 1]}, "routed_layers is [-3, 1]; layers count from 0"),
    *(
        (
            {"comparison": {"looks": looks}},
            f"field 'comparison': Value error, looks is {looks}; give",
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


@pytest.mark.parametrize(("change", "said"), WRONG)
def test_a_wrong_field_is_named_with_its_value(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as told:
        parse_suite({**SUITE, **change}, "mine.yaml")
    assert (
        said in str(told.value) and "'mine.yaml'" in str(told.value) and "\n" not in str(told.value)
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: [", "is not valid YAML"),
        (b"- a\n- b", "holds list, not a mapping"),
        (b"", "holds NoneType, not a mapping"),
        (b"\xff\xfe\x00", "is not valid YAML"),
        (b"a: !!python/object/apply:os.getcwd []", "is not valid YAML"),
        (b"1: 2", "field "),
        (b"? [a, b]\n: c", "is not valid YAML"),
    ],
)
def test_a_file_that_is_no_suite(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as told:
        load_suite(str(path))
    assert said in str(told.value) and "\n" not in str(told.value)


def test_a_suite_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Unknown suite 'quik'\. Did you mean 'quick'\?"):
        load_suite("quik")
    with pytest.raises(UserError, match="does not exist"):
        load_suite(str(tmp_path / "none.yaml"))
    with pytest.raises(UserError, match="does not exist"):
        (tmp_path / "folder.yaml").mkdir()
        load_suite(str(tmp_path / "folder.yaml"))


def test_every_field_is_explained() -> None:
    """A reader of the file finds what a field means.

    By its description, or because its type says it all.
    """
    plain = {
        "name",
        "purpose",
        "regime",
        "backbone",
        "routed_layers",
        "seq_len",
        "match",
        "seeds",
        "data",
        "train",
        "evaluation",
    }
    plain |= {"comparison", "sensitivity", "rows", "device", "dtype", "compile"}
    assert {
        name for name, field in SuiteConfig.model_fields.items() if not field.description
    } <= plain


def test_an_assigned_path_brings_its_own_source() -> None:
    found = load_suite("quick", assignments=["data.path=my.jsonl"]).data
    assert (found.source, found.path) == ("local", "my.jsonl")
    assert load_suite("quick", assignments=["data.path=owner/name"]).data.source == "hub"
    with pytest.raises(UserError, match=r"'embedded' with path 'my\.jsonl'"):
        load_suite("quick", assignments=["data.path=my.jsonl", "data.source=embedded"])
