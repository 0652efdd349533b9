from pathlib import Path

import pytest
import torch
import yaml

from bench.config.base import hash_of
from bench.config.read_suite import load_suite, parse_suite, suite_names
from bench.errors import UserError
from tests.config.suites import SUITE


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


def test_overrides_replace_fields_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(SUITE), encoding="utf-8")
    assert (load_suite(str(path)).budget, load_suite(str(path), {"budget": 0.25}).budget) == (
        0.5,
        0.25,
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


def test_an_assigned_path_brings_its_own_source() -> None:
    found = load_suite("quick", assignments=["data.path=my.jsonl"]).data
    assert (found.source, found.path) == ("local", "my.jsonl")
    assert load_suite("quick", assignments=["data.path=owner/name"]).data.source == "hub"
    with pytest.raises(UserError, match=r"'embedded' with path 'my\.jsonl'"):
        load_suite("quick", assignments=["data.path=my.jsonl", "data.source=embedded"])


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("data.path=", "--set 'data.path=' assigns nothing: write field=value"),
        ("data.path= ", "assigns nothing"),
        ('data.path=""', "field 'data.path': String should have at least 1 character"),
        ("data.path=2024", "reads as no text: put it in quotes, '\"2024\"'."),
        ("data.path=2024-01-31", "put it in quotes, '\"2024-01-31\"'."),
    ],
)
def test_an_assigned_text_is_text_and_never_the_default(assignment: str, said: str) -> None:
    """An empty path would be the embedded corpus, which nobody asked for."""
    with pytest.raises(UserError) as told:
        load_suite("quick", assignments=[assignment])
    assert said in str(told.value)


@pytest.mark.parametrize(
    "assignments",
    [
        ("train.batch_size=8", "train.batch_size=4"),
        ("train.batch_size=8", "seeds=2", "train={reference_tokens: 9}"),
    ],
)
def test_a_field_that_is_assigned_twice_is_refused(assignments: tuple[str, ...]) -> None:
    """As a key that stands twice in a file; the last would win unsaid."""
    with pytest.raises(UserError) as told:
        load_suite("quick", assignments=assignments)
    assert assignments[0] in str(told.value) and assignments[-1] in str(told.value)


def test_a_group_and_then_one_of_its_fields_are_assigned() -> None:
    given = ("data={path: a.jsonl}", "data.text_column=body", "seq_len=64", "seeds=4")
    suite = load_suite("quick", assignments=given)
    assert (suite.data.path, suite.data.text_column, suite.seeds) == ("a.jsonl", "body", 4)


@pytest.mark.parametrize(
    ("device", "found", "dtype"),
    [
        ("cpu", {"amx_bf16": True}, "bfloat16"),
        ("cpu", {"avx512_bf16": True}, "bfloat16"),
        ("cpu", {"avx2": True, "avx512_bf16": False}, "float32"),
        # A suite for GPUs, planned on a machine without one.
        ("cuda", {}, "bfloat16"),
    ],
)
def test_the_precision_auto_is_settled_as_the_suite_is_read(
    device: str, found: dict[str, bool], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    settled = load_suite("quick", {"dtype": "auto", "device": device})
    assert settled.dtype == dtype
    assert settled == load_suite("quick", {"device": device}, [f"dtype={dtype}"])
