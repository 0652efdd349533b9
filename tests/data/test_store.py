"""A built corpus on disk: an intact one is read back, a damaged one is refused."""

import json
from pathlib import Path

import pytest

from bench.config.data import DataConfig
from bench.data.documents import Document, Intake
from bench.data.splits import SPLITS
from bench.data.store import META_FILE, read, write
from bench.data.tokenizer import make_tokenizer

TEXTS = {
    "train": ["one fish", "two fish", "red"],
    "calibration": ["blue", "old"],
    "validation": ["new", "this one has a star"],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A corpus of two domains."""
    splits = {
        split: [
            Document(f"{split}{n}", ("a", "b")[min(n, 1)], text)
            for n, text in enumerate(TEXTS[split])
        ]
        for split in SPLITS
    }
    tokenizer = make_tokenizer(DataConfig(tokenizer="bytes"), [])
    write(tmp_path / "corpus", splits, tokenizer, {"a": 0.0, "b": 0.5}, ["a"], Intake())
    return tmp_path / "corpus"


def test_what_was_written_is_read(folder: Path) -> None:
    corpus = read(folder)
    assert corpus is not None
    assert (corpus.domains, corpus.headline_domains) == (("a", "b"), ("a",))
    assert corpus.overlap == {"a": 0.0, "b": 0.5}
    for split in SPLITS:
        found = getattr(corpus, split)
        end = corpus.tokenizer.end_of_document
        text = [[*document.encode(), end] for document in TEXTS[split]]
        assert found.tokens.tolist() == [token for ids in text for token in ids]
        assert found.document_names == tuple(f"{split}{n}" for n in range(len(text)))
    assert [path.name for path in folder.parent.iterdir()] == ["corpus"], "no other file is left"


def test_what_is_cut_short_changed_or_missing_is_not_used(folder: Path) -> None:
    assert read(folder.with_name("absent")) is None
    for file in sorted(folder.iterdir()):
        good = file.read_bytes()
        for bad in (good[:-1], bytes([*good[:-1], good[-1] ^ 1])):
            file.write_bytes(bad)
            assert read(folder) is None, file.name
        file.unlink()
        assert read(folder) is None, file.name
        file.write_bytes(good)
    assert read(folder) is not None
    meta = json.loads((folder / META_FILE).read_text(encoding="utf-8"))
    (folder / META_FILE).write_text(json.dumps(meta | {"headline": ["b"]}), encoding="utf-8")
    assert read(folder) is None, "an edited list of headline domains"
