from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bench.config.data import STREAM_TOKENS, DataConfig


@pytest.mark.parametrize(
    ("path", "source"),
    [
        (None, "embedded"),
        ("HuggingFaceFW/fineweb-edu", "hub"),
        ("texts/part.parquet", "local"),
        ("texts/*.jsonl", "local"),
        ("./texts/english", "local"),
        ("/data/x/y", "local"),
        ("notes.txt", "local"),
        ("data/x.csv", "local"),
        ("data/MY.JSONL", "local"),
        ("data/my.jsonl.gz", "local"),
        ("~/corpus", "local"),
        ("corpus", "local"),
        ("a/b::c", "local"),
        ("x" * 5000 + "/y", "hub"),
    ],
)
def test_source_follows_from_the_path(path: str | None, source: str) -> None:
    assert DataConfig.model_validate({"path": path}).source == source


def test_an_existing_folder_is_local_though_it_looks_like_a_hub_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert DataConfig.model_validate({"path": "owner/name"}).source == "hub"
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert DataConfig.model_validate({"path": "owner/name"}).source == "local"


def test_a_name_in_an_existing_folder_is_local_though_it_does_not_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    assert DataConfig.model_validate({"path": "data/typo"}).source == "local"
    assert DataConfig.model_validate({"path": "data/name", "source": "hub"}).path == "data/name"


def test_spellings_of_one_path_are_one_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "data").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "here")
    (tmp_path / "here" / "data" / "l.jsonl").symlink_to("my.jsonl")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "here")

    def canonical(path: str) -> dict[str, Any]:
        files = {"path": path, "tokenizer": "bpe", "tokenizer_file": path}
        return DataConfig.model_validate(files).canonical()

    whole, linked = str(tmp_path / "here/data/my.jsonl"), str(tmp_path / "link/data/my.jsonl")
    same = ["./data/my.jsonl", "data/../data//my.jsonl", whole, linked, "~/here/data/my.jsonl"]
    for path in same:
        assert canonical(path) == canonical("data/my.jsonl")
    assert canonical(whole)["path"] == "data/my.jsonl"
    assert canonical("../other.jsonl")["path"] == str(tmp_path / "other.jsonl")
    assert canonical("data/l.jsonl")["path"] == "data/l.jsonl", "a link keeps its name and ending"
    assert DataConfig.model_validate(canonical(whole)).canonical() == canonical(whole)


def test_defaults_are_written_out() -> None:
    hub = DataConfig.model_validate(
        {"path": "HuggingFaceFW/fineweb-edu", "name": "sample-10BT", "tokenizer": "bpe"}
    )
    assert (hub.vocab_size, hub.max_tokens) == (4096, STREAM_TOKENS)
    assert DataConfig.model_validate(hub.model_dump()) == hub
    assert DataConfig().vocab_size == 256
    assert DataConfig().max_tokens is None


def test_a_bpe_token_is_budgeted_as_four_bytes() -> None:
    assert DataConfig.model_validate({"max_tokens": 1000}).max_bytes == 1000
    assert DataConfig.model_validate({"max_tokens": 1000, "tokenizer": "bpe"}).max_bytes == 4000


@pytest.mark.parametrize(
    "bad",
    [
        {"tokeniser": "bytes"},
        {"source": "web", "path": "x"},
        {"source": "embedded", "path": "x.txt"},
        {"source": "hub"},
        {"vocab_size": 300},
        {"tokenizer": "bpe", "vocab_size": 257},
        {"max_tokens": 0},
        {"max_holdout": 0.5},
    ],
)
def test_contradictions_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        DataConfig.model_validate(bad)
