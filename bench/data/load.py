"""Load the corpus of a data configuration: from the cache, or built into it.

Generated text is never cached.
"""

import hashlib
import json
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import cast

import numpy as np

from bench.config.data import DataConfig
from bench.data import planted, store
from bench.data.corpus import Corpus, Split
from bench.data.documents import Document, Intake, Source
from bench.data.overlap import overlap
from bench.data.splits import divide
from bench.data.tokenizer import Tokenizer, make_tokenizer, tokenizer_text
from bench.errors import UserError
from bench.files import default_cache, file_lock

CORPUS_FORMAT = 2
"""Raise it when a build gives other tokens or another layout from the same text."""

SOURCE_MODULES = {
    "embedded": "bench.data.embedded",
    "local": "bench.data.local",
    "hub": "bench.data.hub",
}
"""Name of a source -> module whose `source(config)` returns the documents, imported at use."""


def load_corpus(
    config: DataConfig, cache: Path | None = None, said: Callable[[str], None] = lambda _: None
) -> Corpus:
    """Return the corpus of a configuration, from the cache if it lies there undamaged.

    Several processes may call this at once: one builds, the others wait.

    Args:
        config: source, tokenizer and splits.
        cache: folder of the user's cache; None for `default_cache()`.
        said: called with a line before text is read that is not in the cache, which may take long.

    Raises:
        UserError: the text cannot be read, differs from the manifest, or is too short to split.
    """
    if config.source == "planted":
        return planted.corpus(config)
    source = cast(
        Callable[[DataConfig], Source], import_module(SOURCE_MODULES[config.source]).source
    )(config)
    directory = (cache or default_cache()) / "corpora" / _folder_name(config, source)
    if (corpus := store.read(directory)) is not None:
        return corpus
    said(f"reading {config.path or f'the {config.source} text'}; later runs find it in the cache")
    with _writing(directory):
        directory.parent.mkdir(parents=True, exist_ok=True)
        lock = file_lock(directory.with_suffix(".lock"))
        lock.acquire()
    try:
        # Another process may have built the corpus while this one waited for the lock.
        if (corpus := store.read(directory)) is None:
            _build(config, source, directory)
            corpus = store.read(directory)
    finally:
        lock.release()
    if corpus is None:
        raise UserError(
            f"The corpus just written to {directory} does not read back: check the disk."
        )
    return corpus


def _folder_name(config: DataConfig, source: Source) -> str:
    """Return the name of a corpus in the cache. It ends in a key of all that the tokens rest on."""
    # The key covers the content of a tokenizer file too.
    given = [] if config.tokenizer_file is None else [tokenizer_text(config)]
    key = hashlib.sha256(
        json.dumps([CORPUS_FORMAT, config.canonical(), source.key, *given], sort_keys=True).encode()
    ).hexdigest()
    return f"{config.source}-{config.tokenizer}-{key[:16]}"


def declared_corpus(config: DataConfig) -> Corpus:
    """Return a corpus without text, with a vocabulary of the declared size, to plan runs.

    Args:
        config: a configuration whose text is not read.
    """
    ids = np.zeros(0, np.uint16)
    empty = Split(ids, np.zeros(1, np.int64), np.zeros(0, np.uint8), ())
    pieces = (b" ",) * (config.vocab_size - 1) + (b"",)
    tokenizer = Tokenizer(pieces, lambda texts: [ids for _ in texts])
    domains = ("text",)
    return Corpus(domains, domains, {}, empty, empty, empty, "declared", tokenizer)


def _up_to(documents: Iterable[Document], limit: int | None, intake: Intake) -> Iterator[Document]:
    """Yield documents until `limit` bytes are reached, and read no further."""
    size = 0
    for document in documents:
        yield document
        size += len(document.data)
        if limit is not None and size >= limit:
            intake.stopped = True
            return


def _build(config: DataConfig, source: Source, directory: Path) -> None:
    intake = source.intake
    splits = divide(_up_to(source.documents(), config.max_bytes, intake), config, intake)
    domains = sorted({document.domain for document in splits["train"]})
    validation = {
        domain: [document for document in splits["validation"] if document.domain == domain]
        for domain in domains
    }
    shares = overlap(validation, splits["train"])
    headline = [domain for domain in domains if shares[domain] <= config.max_overlap]
    if not headline:
        found = ", ".join(f"{domain} {share:.1%}" for domain, share in shares.items())
        raise UserError(
            f"No domain can be part of the headline: more than {config.max_overlap:.0%} of"
            f" validation 13-grams occur in training ({found})."
            " Remove repeated text, or raise max_overlap."
        )
    # A BPE learns from the first texts only. In hash order they come from all domains.
    shuffled = sorted(splits["train"], key=lambda document: document.digest)
    tokenizer = make_tokenizer(config, (document.data.decode() for document in shuffled))
    with _writing(directory):
        store.write(directory, splits, tokenizer, shares, headline, intake)


@contextmanager
def _writing(directory: Path) -> Generator[None, None, None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"Cannot write {directory}: {reason}. Set TOKEN_ROUTING_BENCH_CACHE to a folder with"
            " room."
        ) from error
