import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench.data import Corpus, DataConfig, corpus_card, corpus_line, load_corpus
from bench.data.corpus import Split
from bench.data.documents import Intake
from bench.data.tokenizer import byte_tokenizer
from tests.data.conftest import prose


def numbers(line: str) -> list[int]:
    """Whole numbers of a line of the table, up to the overlap."""
    words = line.replace(",", "").replace("/", " ").split()
    return [int(word) for word in words if word.isdigit()]


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe"])
def test_the_card_counts_what_is_in_the_splits(
    two_domains: Path, tmp_path: Path, tokenizer: str
) -> None:
    size = {"bytes": 256, "bpe": 400}[tokenizer]
    data = {"path": str(two_domains), "domain_column": "kind"}
    config = DataConfig.model_validate(data | {"tokenizer": tokenizer, "vocab_size": size})
    corpus = load_corpus(config, tmp_path)
    lines = corpus_card(corpus, config).splitlines()
    rows = [json.loads(line) for line in two_domains.read_text().splitlines()]
    whole = sum(len(row["text"]) for row in rows)
    assert lines[0] == corpus_line(corpus, config)
    assert f": 1 file, 120 documents, {whole:,} bytes, " in lines[0]
    splits = (corpus.train, corpus.calibration, corpus.validation)
    tokens = sum(len(split.tokens) - len(split.document_names) for split in splits)
    assert f", {whole / tokens:.2f} bytes per token" in lines[0]
    assert lines[1] == "left out: nothing"
    for tag, kind in enumerate(("even", "odd")):
        (line,) = [line for line in lines if line.startswith(kind)]
        counted = np.array(numbers(line)).reshape(3, 3)
        assert counted[0].sum() == 60
        assert counted[1].sum() == sum(len(row["text"]) for row in rows if row["kind"] == kind)
        assert counted[2].tolist() == [int((split.tags == tag).sum()) for split in splits]
        assert line.endswith("0.0%")


def test_the_card_says_what_was_left_out_also_of_a_cached_corpus(
    table: Callable[..., Path], tmp_path: Path
) -> None:
    texts = [prose(index) for index in range(60)]
    rows: list[dict[str, object]] = [{"text": text, "kind": "a"} for text in texts]
    rows += [{"text": prose(100 + index), "kind": "b"} for index in range(60)]
    rows += [{"text": texts[0], "kind": "b"}, {"text": texts[1], "kind": "a"}]
    rows += [{"text": None, "kind": "a"}] * 3 + [{"text": " ", "kind": "a"}] * 4
    rows += [{"text": "x", "kind": None}, {"text": prose(7, 9000), "kind": "a"}]
    data = {"path": str(table(rows)), "domain_column": "kind"}
    config = DataConfig.model_validate(data)
    for _ in range(2):
        said = corpus_card(load_corpus(config, tmp_path), config)
        assert said.splitlines()[1:3] == [
            "left out: 1 duplicate, 1 duplicate in another domain, 4 empty, 3 null, 1 null domain",
            "kept in training: 1 too long for a held-out split (max_holdout 0.1)",
        ]
    limited = DataConfig.model_validate(data | {"max_tokens": 50_000})
    said = corpus_card(load_corpus(limited, tmp_path), limited)
    assert "\nreading stopped at max_tokens, 50,000\n" in said


def test_a_vocabulary_that_the_text_does_not_fill_is_said(
    two_domains: Path, tmp_path: Path
) -> None:
    data = {"path": str(two_domains), "tokenizer": "bpe"}
    for size, said in ((400, None), (60_000, "the text gives no more than")):
        config = DataConfig.model_validate(data | {"vocab_size": size})
        corpus = load_corpus(config, tmp_path)
        line = corpus_card(corpus, config).splitlines()[2]
        assert (corpus.vocab_size < size) == (said is not None)
        assert (
            line.startswith("domain")
            if said is None
            else line == (f"{said} {corpus.vocab_size:,} of 60,000 token ids")
        )


def test_a_held_out_split_beyond_its_share_is_said(
    table: Callable[..., Path], tmp_path: Path
) -> None:
    rows = [{"text": prose(index)} for index in range(5)]
    config = DataConfig.model_validate({"path": str(table(rows))})
    said = corpus_card(load_corpus(config, tmp_path), config)
    assert "\nmore held out than max_holdout 0.1: text 2" in said


def test_a_domain_out_of_the_headline_is_said(table: Callable[..., Path], tmp_path: Path) -> None:
    rows = [{"text": prose(i if i % 2 else 0) + f" {i}", "kind": "ab"[i % 2]} for i in range(80)]
    config = DataConfig.model_validate({"path": str(table(rows)), "domain_column": "kind"})
    said = corpus_card(load_corpus(config, tmp_path), config)
    assert "\nnot in the headline, overlap above 5%: a\n" in said


@pytest.mark.parametrize(
    ("name", "shown"), [("L" * 300, "L" * 29 + "..."), ("a\nb\x1b[1m", "a·b·[1m"), ("", "''")]
)
def test_a_domain_of_any_name_keeps_to_its_line(
    table: Callable[..., Path], tmp_path: Path, name: str, shown: str
) -> None:
    rows = [
        {"text": prose(i if i % 2 else 0) + f" {i}", "kind": [name, "z"][i % 2]} for i in range(80)
    ]
    config = DataConfig.model_validate({"path": str(table(rows)), "domain_column": "kind"})
    lines = corpus_card(load_corpus(config, tmp_path), config).splitlines()
    assert [line for line in lines if line.startswith(f"{shown} ")] == [lines[-2]]
    assert lines[-3].startswith("---") and lines[-1].startswith("z ")
    assert f"not in the headline, overlap above 5%: {shown}" in lines


def test_the_card_of_a_generated_task() -> None:
    config = DataConfig.model_validate({"source": "planted", "max_tokens": 10_000}).at(0)
    lines = corpus_card(load_corpus(config), config).splitlines()
    assert lines[0].startswith("data planted: ")
    assert lines[0].endswith(" bytes, 1.00 bytes per token")
    assert lines[1] == "generated: nothing is read or left out"
    assert numbers(lines[-1])[3:] == 2 * numbers(lines[-1])[3:6]


def test_many_domains_share_a_line() -> None:
    tags = np.arange(200, dtype=np.uint8)
    tokens = np.full(400, ord("a"), np.uint8)
    tokens[1::2] = 255
    split = Split(tokens, np.arange(201) * 2, tags, tuple(map(str, tags)))
    names = tuple(f"d{tag}" for tag in tags)
    corpus = Corpus(
        domains=names,
        headline_domains=names,
        overlap={name: index / 1000 for index, name in enumerate(names)},
        train=split,
        calibration=split,
        validation=split,
        content_hash="",
        tokenizer=byte_tokenizer(),
        intake=Intake(),
    )
    lines = corpus_card(corpus, DataConfig()).splitlines()
    assert len(lines) <= 15
    assert lines[-1].startswith("193 other domains")
    assert numbers(lines[-1])[1:] == [193] * 6 + [386] * 3
    assert lines[-1].endswith("19.9%"), "the largest overlap"
