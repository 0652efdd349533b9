from pathlib import Path

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
