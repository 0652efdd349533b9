"""Store a built corpus on disk: a folder of arrays, and `meta.json` with the SHA-256 of each.

A folder is written under another name and renamed into place, so it is whole or absent. Every load
hashes every file, so a file that was cut short or changed is never used.
"""

import hashlib
import json
import logging
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.corpus import Corpus, Split
from bench.data.documents import Document, Intake
from bench.data.splits import SPLITS
from bench.data.tokenizer import TOKENIZER_FILE, Tokenizer, stored_tokenizer

META_FILE = "meta.json"
_ARRAYS = ("tokens", "offsets", "tags")
_ENCODE_AT_ONCE = 256
_logger = logging.getLogger(__name__)


def write(
    directory: Path,
    splits: Mapping[str, Sequence[Document]],
    tokenizer: Tokenizer,
    overlap: dict[str, float],
    headline: Sequence[str],
    intake: Intake,
) -> None:
    """Tokenise `splits` and put the corpus at `directory` in one move.

    The caller holds the lock on `directory`. An older corpus there is replaced.
    """
    # Only a killed build can have left this folder, since the caller holds the lock.
    building = directory.with_name(f".{directory.name}")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    try:
        domains = sorted(overlap)
        if tokenizer.file is not None:
            (building / TOKENIZER_FILE).write_text(tokenizer.file, encoding="utf-8")
        for split in SPLITS:
            _write_split(building, split, splits[split], domains, tokenizer)
        names = {split: [document.name for document in splits[split]] for split in SPLITS}
        meta = {
            "domains": domains,
            "headline": list(headline),
            "overlap": overlap,
            "names": names,
            "intake": {**vars(intake), "dropped": dict(intake.dropped)},
            **_hashes(building, domains),
        }
        text = json.dumps({"digest": _digest(meta), **meta})
        (building / META_FILE).write_text(text, encoding="utf-8")
        if directory.exists():
            shutil.rmtree(directory)
        building.rename(directory)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def read(directory: Path) -> Corpus | None:
    """Return the corpus at `directory`, or None if it is missing or damaged."""
    if not directory.exists():
        return None
    try:
        meta = json.loads((directory / META_FILE).read_text(encoding="utf-8"))
        digest = meta.pop("digest")
        damaged = (
            [META_FILE]
            if digest != _digest(meta)
            else [n for n, h in meta["files"].items() if _sha256(directory / n) != h]
        )
    except (OSError, ValueError, KeyError, AttributeError) as error:
        # A missing file, broken JSON, or JSON of another shape.
        damaged = [repr(error)]
        meta = {}
    if damaged:
        _logger.warning(
            "cached corpus %s is damaged (%s) and is built again", directory, ", ".join(damaged)
        )
        return None
    train, calibration, validation = (
        _read_split(directory, split, meta["names"][split]) for split in SPLITS
    )
    return Corpus(
        domains=tuple(meta["domains"]),
        headline_domains=tuple(meta["headline"]),
        overlap=meta["overlap"],
        train=train,
        calibration=calibration,
        validation=validation,
        content_hash=meta["content"],
        tokenizer=stored_tokenizer(directory),
        intake=Intake(**meta["intake"] | {"dropped": Counter(meta["intake"]["dropped"])}),
    )


def _write_split(
    directory: Path,
    split: str,
    documents: Sequence[Document],
    domains: list[str],
    tokenizer: Tokenizer,
) -> None:
    end = np.array([tokenizer.end_of_document], tokenizer.dtype)
    parts: list[np.ndarray[Any, Any]] = []
    offsets = [0]
    # The tokenizer encodes several texts in parallel; all texts at once would fill the memory.
    for start in range(0, len(documents), _ENCODE_AT_ONCE):
        for ids in tokenizer.encode_batch(
            [document.text for document in documents[start : start + _ENCODE_AT_ONCE]]
        ):
            parts += [ids.astype(tokenizer.dtype, copy=False), end]
            offsets.append(offsets[-1] + len(ids) + 1)
    tags = [domains.index(document.domain) for document in documents]
    arrays = (np.concatenate(parts), np.array(offsets, np.int64), np.array(tags, np.uint8))
    for name, array in zip(_ARRAYS, arrays, strict=True):
        np.save(directory / f"{split}-{name}.npy", array)


def _read_split(directory: Path, split: str, names: list[str]) -> Split:
    tokens, offsets, tags = (
        np.load(directory / f"{split}-{name}.npy", mmap_mode="r") for name in _ARRAYS
    )
    return Split(tokens, np.asarray(offsets), np.asarray(tags), tuple(names))


def _hashes(directory: Path, domains: list[str]) -> dict[str, Any]:
    """Return the hash of each file, and the hash of the content: the domains and all files."""
    files = {file.name: _sha256(file) for file in sorted(directory.iterdir())}
    # Neither the names of documents nor the counts belong to the content.
    content = hashlib.sha256(json.dumps([domains, files]).encode()).hexdigest()
    return {"content": content, "files": files}


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _digest(meta: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()
