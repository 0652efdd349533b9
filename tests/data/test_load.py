import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from bench.data import (
    Corpus,
    DataConfig,
    corpus_card,
    declared_corpus,
    load_corpus,
    statistics,
)
from bench.errors import UserError
from bench.files import default_cache
from tests.data.conftest import prose


def config(path: Path, **options: object) -> DataConfig:
    return DataConfig.model_validate({"path": str(path), "domain_column": "kind", **options})


def texts(corpus: Corpus) -> list[str]:
    """Documents of all splits, decoded from the tokens."""
    found: list[str] = []
    for split in (corpus.train, corpus.calibration, corpus.validation):
        for start, end in zip(split.offsets[:-1], split.offsets[1:], strict=True):
            assert split.tokens[end - 1] == corpus.tokenizer.end_of_document
            found.append(
                b"".join(
                    corpus.tokenizer.pieces[token] for token in split.tokens[start : end - 1]
                ).decode()
            )
    return found


@pytest.mark.parametrize(
    "tokenizer", [{"tokenizer": "bytes"}, {"tokenizer": "bpe", "vocab_size": 400}]
)
def test_every_document_comes_back_whole_from_the_tokens(
    two_domains: Path, tmp_path: Path, tokenizer: dict[str, object]
) -> None:
    corpus = load_corpus(config(two_domains, **tokenizer), tmp_path)
    rows = [json.loads(line) for line in two_domains.read_text().splitlines()]
    assert sorted(texts(corpus)) == sorted(row["text"] for row in rows)
    assert corpus.domains == corpus.headline_domains == ("even", "odd")
    assert corpus.overlap == {"even": 0.0, "odd": 0.0}
    assert corpus.vocab_size == tokenizer.get("vocab_size", 256)
    kinds = {row["text"]: row["kind"] for row in rows}
    for start, end, tag in zip(
        corpus.train.offsets[:-1], corpus.train.offsets[1:], corpus.train.document_tags, strict=True
    ):
        text = b"".join(
            corpus.tokenizer.pieces[token] for token in corpus.train.tokens[start:end]
        ).decode()
        assert kinds[text] == corpus.domains[tag]
    assert (
        corpus.encode("plain text").tolist()
        == corpus.tokenizer.encode_batch(["plain text"])[0].tolist()
    )


def test_a_warm_load_maps_the_same_arrays(
    two_domains: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cold = load_corpus(config(two_domains), tmp_path)
    monkeypatch.setattr("bench.data.load._build", None)
    warm = load_corpus(config(two_domains), tmp_path)
    assert isinstance(warm.train.tokens, np.memmap)
    assert warm.content_hash == cold.content_hash
    assert (warm.train.tokens == cold.train.tokens).all()
    assert warm.train.document_names == cold.train.document_names


def test_the_content_hash_follows_the_content_alone(
    two_domains: Path, table: Callable[..., Path], tmp_path: Path
) -> None:
    first = load_corpus(config(two_domains), tmp_path).content_hash
    rows = [json.loads(line) for line in two_domains.read_text().splitlines()]
    assert load_corpus(config(table(rows[::-1], "reversed.jsonl")), tmp_path).content_hash == first
    assert load_corpus(config(table(rows[1:], "fewer.jsonl")), tmp_path).content_hash != first
    renamed = [row | {"kind": row["kind"] + "!"} for row in rows]
    assert load_corpus(config(table(renamed, "renamed.jsonl")), tmp_path).content_hash != first
    assert load_corpus(config(two_domains, calibration_bytes=10), tmp_path).content_hash != first


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "meta", "no meta"])
def test_a_damaged_cache_is_built_again_and_never_used(
    two_domains: Path, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    good = load_corpus(config(two_domains), tmp_path)
    tokens = np.array(good.train.tokens)
    (folder,) = (path for path in (tmp_path / "corpora").iterdir() if path.is_dir())
    file = folder / ("meta.json" if "meta" in damage else "train-tokens.npy")
    data = file.read_bytes()
    if damage in ("remove", "no meta"):
        file.unlink()
    elif damage == "truncate":
        file.write_bytes(data[:-1000])
    elif damage == "flip":
        file.write_bytes(data[:-1000] + bytes([data[-1000] ^ 1]) + data[-999:])
    else:
        file.write_bytes(data.replace(b'"overlap": {"even": 0.0', b'"overlap": {"even": 0.9'))
        assert file.read_bytes() != data
    with caplog.at_level(logging.WARNING):
        again = load_corpus(config(two_domains), tmp_path)
    assert "damaged" in caplog.text
    assert again.content_hash == good.content_hash
    assert again.overlap["even"] == 0.0
    assert (again.train.tokens == tokens).all()


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe"])
def test_a_character_without_utf8_becomes_a_question_mark(
    table: Callable[..., Path], tmp_path: Path, tokenizer: str
) -> None:
    rows = [{"text": f"lone \ud800 {prose(index)}", "kind": "a"} for index in range(30)]
    corpus_config = config(table(rows), tokenizer=tokenizer)
    corpus = load_corpus(corpus_config, tmp_path)
    assert all(text.startswith("lone ? ") for text in texts(corpus))
    # The card says it, also when the corpus comes from the cache.
    for found in (corpus, load_corpus(corpus_config, tmp_path)):
        assert "changed: 30 with a character that UTF-8 lacks" in corpus_card(found, corpus_config)


def test_a_changed_file_is_read_again(
    table: Callable[..., Path], two_domains: Path, tmp_path: Path
) -> None:
    before = load_corpus(config(two_domains), tmp_path)
    rows = [json.loads(line) for line in two_domains.read_text().splitlines()]
    table(rows[:-10])
    assert len(load_corpus(config(two_domains), tmp_path).train.tokens) < len(before.train.tokens)


def test_repeated_domains_are_reported_apart(
    table: Callable[..., Path], two_domains: Path, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in two_domains.read_text().splitlines()]
    for index, row in enumerate(rows):
        if row["kind"] == "odd":
            row["text"] = rows[1]["text"] + f" {index}"
    templated = table(rows, "templated.jsonl")
    corpus = load_corpus(config(templated), tmp_path)
    assert corpus.domains == ("even", "odd")
    assert corpus.headline_domains == ("even",)
    assert corpus.overlap["odd"] > 0.9
    assert load_corpus(config(templated, max_overlap=1), tmp_path).headline_domains == (
        "even",
        "odd",
    )
    with pytest.raises(UserError, match="raise max_overlap"):
        load_corpus(
            config(table([row for row in rows if row["kind"] == "odd"], "odd.jsonl")), tmp_path
        )


def test_max_tokens_bounds_what_is_read(two_domains: Path, tmp_path: Path) -> None:
    corpus = load_corpus(config(two_domains, max_tokens=50_000), tmp_path)
    documents = texts(corpus)
    size = sum(len(text) for text in documents)
    assert 50_000 <= size <= 50_000 + max(len(text) for text in documents)


def test_statistics_agree_with_a_loop(
    two_domains: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.data.sampling._CHUNK", 1000)
    corpus = load_corpus(config(two_domains, max_tokens=20_000), tmp_path)
    unigram, bigram = statistics(corpus)
    tokens = corpus.train.tokens.tolist()
    expected = np.zeros((256, 256), int)
    for previous, current in pairwise(tokens):
        expected[previous, current] += 1
    assert bigram is not None
    assert (bigram == expected).all()
    assert unigram.tolist() == [tokens.count(value) for value in range(256)]
    assert (
        statistics(load_corpus(config(two_domains, tokenizer="bpe", vocab_size=1025), tmp_path))[1]
        is None
    )


RUN = """
import sys, time
from pathlib import Path
from bench.data import DataConfig, load_corpus, store
write_split = store._write_split
def announced(directory, split, *arguments):
    write_split(directory, split, *arguments)
    if split == "calibration":
        print("building", flush=True)
        time.sleep(float(sys.argv[3]))
store._write_split = announced
print(load_corpus(DataConfig(path=sys.argv[1]), Path(sys.argv[2])).content_hash)
"""


def start(path: Path, cache: Path, pause: float) -> "subprocess.Popen[str]":
    """Load a corpus in a process that says when it is halfway through writing, and then pauses for
    some seconds.
    """
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(path), str(cache), str(pause)],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_processes_at_once_build_one_corpus(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("".join(f"line {i} says {i * i % 9973}\n" for i in range(60_000)))
    runs = [start(text, tmp_path, 0.5) for _ in range(3)]
    outputs = [run.communicate(timeout=60)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert "".join(outputs).count("building") == 1
    assert len({output.split()[-1] for output in outputs}) == 1


def test_a_build_killed_halfway_leaves_nothing_that_is_used(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("".join(f"line {i} says {i * i % 9973}\n" for i in range(60_000)))
    run = start(text, tmp_path / "killed", 60)
    assert run.stdout is not None
    assert run.stdout.readline() == "building\n"
    os.kill(run.pid, signal.SIGKILL)
    run.communicate()
    assert [
        path for path in (tmp_path / "killed" / "corpora").iterdir() if path.name.startswith(".")
    ], "half a corpus"
    settings = DataConfig.model_validate({"path": str(text)})
    assert (
        load_corpus(settings, tmp_path / "killed").content_hash
        == load_corpus(settings, tmp_path / "whole").content_hash
    )
    assert not [
        path for path in (tmp_path / "killed" / "corpora").iterdir() if path.name.startswith(".")
    ]


def test_a_cache_that_cannot_be_written_is_named(two_domains: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="TOKEN_ROUTING_BENCH_CACHE"):
        load_corpus(config(two_domains), tmp_path / "file")


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_ROUTING_BENCH_CACHE", "~/own")
    assert default_cache() == Path("~/own").expanduser()
    monkeypatch.delenv("TOKEN_ROUTING_BENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_cache() == Path("/somewhere/token-routing-bench")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache() == Path("~/.cache/token-routing-bench").expanduser()


def test_a_declared_corpus_has_the_vocabulary_of_the_real_one_and_no_text(tmp_path: Path) -> None:
    tokens = declared_corpus(config(tmp_path / "nowhere.jsonl"))
    assert tokens.vocab_size == 256 and len(tokens.train.tokens) == 0
    learnt = declared_corpus(config(tmp_path / "nowhere.jsonl", tokenizer="bpe", vocab_size=300))
    assert learnt.vocab_size == 300 and learnt.domains == ("text",)


def test_a_text_is_announced_before_it_is_read_and_not_when_it_is_cached(
    two_domains: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    load_corpus(config(two_domains), tmp_path, said.append)
    assert said == [f"reading {config(two_domains).path}; later runs find it in the cache"]
    load_corpus(config(two_domains), tmp_path, said.append)
    assert len(said) == 1
