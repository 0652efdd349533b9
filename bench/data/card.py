"""Print the card of a corpus: its size, the documents left out, and its splits."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from bench.config.data import DataConfig
from bench.data.corpus import Corpus, Split
from bench.data.splits import ROUNDING, SPLITS

MOST_DOMAINS = 8
"""Domains that get their own line. The others share one."""
LONGEST_NAME = 32
"""Characters of a domain's name that are shown."""
# Tokens per pass over a split: a memory-mapped split may be larger than memory.
_CHUNK = 2**22


@dataclass(frozen=True)
class Tally:
    """Sizes of one split.

    Attributes:
        documents: documents of each domain, `[domain]`.
        bytes: bytes of each domain, without the end-of-document tokens, `[domain]`.
        tokens: tokens of each domain, with the end-of-document tokens, `[domain]`.
    """

    documents: NDArray[np.int64]
    bytes: NDArray[np.int64]
    tokens: NDArray[np.int64]


def tally(split: Split, corpus: Corpus) -> Tally:
    """Count the documents, bytes and tokens of each domain in a split."""
    documents = np.bincount(split.document_tags, minlength=len(corpus.domains))
    sizes: list[int] = []
    for start, stop in split.domain_ranges:
        # Count each id, then weigh the counts by the bytes of the ids.
        ids = np.zeros(corpus.vocab_size, np.int64)
        for first in range(start, stop, _CHUNK):
            part = split.tokens[first : min(first + _CHUNK, stop)]
            ids += np.bincount(part, minlength=corpus.vocab_size)
        sizes.append(int(ids @ corpus.token_bytes))
    tokens = np.array([stop - start for start, stop in split.domain_ranges], np.int64)
    return Tally(documents, np.array(sizes, np.int64), tokens)


def corpus_line(corpus: Corpus, config: DataConfig) -> str:
    """Return one line: origin, files, documents, bytes, bytes per token."""
    return _first_line(corpus, config, _counts(corpus))


def corpus_card(corpus: Corpus, config: DataConfig) -> str:
    """Return up to 15 lines: origin and size, documents left out and why, splits by domain.

    Args:
        corpus: any corpus, read or generated.
        config: the configuration of its data.
    """
    counts = _counts(corpus)
    sizes = [counts[split] for split in SPLITS]
    rows: list[tuple[str, ...]] = []
    # A line for each domain, and one for all; each column has a number per split.
    for name, place in _lines_of(corpus):
        columns = (
            [part.documents[place].sum() for part in sizes],
            [part.bytes[place].sum() for part in sizes],
            [part.tokens[place].sum() for part in sizes],
        )
        shown = [" / ".join(f"{number:,}" for number in column) for column in columns]
        rows.append((name, *shown, _overlap(corpus, place)))
    headers = ("domain", "documents: " + " / ".join(SPLITS), "bytes", "tokens", "overlap")
    return "\n".join(
        (
            _first_line(corpus, config, counts),
            *_remarks(corpus, config, counts),
            tabulate(rows, headers=headers, disable_numparse=True),
        )
    )


def _counts(corpus: Corpus) -> dict[str, Tally]:
    splits = (corpus.train, corpus.calibration, corpus.validation)
    return {name: tally(split, corpus) for name, split in zip(SPLITS, splits, strict=True)}


def _first_line(corpus: Corpus, config: DataConfig, counts: dict[str, Tally]) -> str:
    documents = sum(int(part.documents.sum()) for part in counts.values())
    size = sum(int(part.bytes.sum()) for part in counts.values())
    tokens = sum(int(part.tokens.sum()) for part in counts.values())
    # Documents that were read end with a token of no bytes; generated documents do not.
    ends = documents if corpus.intake is not None else 0
    files = corpus.intake.files if corpus.intake is not None else None
    read = "" if files is None else f"{files:,} file{'' if files == 1 else 's'}, "
    return (
        f"data {config.path or config.source}: {read}{documents:,} documents, {size:,} bytes,"
        f" {size / (tokens - ends):.2f} bytes per token"
    )


def _remarks(corpus: Corpus, config: DataConfig, counts: dict[str, Tally]) -> list[str]:
    """List the documents that were left out or treated specially."""
    intake = corpus.intake
    if intake is None:
        return ["generated: nothing is read or left out"]
    lines = [f"left out: {intake.left_out()}"]
    if corpus.vocab_size < config.vocab_size:
        lines.append(
            f"the text gives no more than {corpus.vocab_size:,} of {config.vocab_size:,} token ids"
        )
    if intake.stopped:
        lines.append(f"reading stopped at max_tokens, {config.max_tokens:,}")
    if intake.replaced:
        lines.append(f"changed: {intake.replaced:,} with a character that UTF-8 lacks, read as '?'")
    if intake.long:
        lines.append(
            f"kept in training: {intake.long:,} too long for a held-out split"
            f" (max_holdout {config.max_holdout:g})"
        )
    if beyond := _beyond(corpus, config, counts):
        lines.append(f"more held out than max_holdout {config.max_holdout:g}: {_listed(beyond)}")
    apart = [_shown(name) for name in corpus.domains if name not in corpus.headline_domains]
    if apart:
        lines.append(
            f"not in the headline, overlap above {config.max_overlap:.0%}: {_listed(apart)}"
        )
    return lines


def _beyond(corpus: Corpus, config: DataConfig, counts: dict[str, Tally]) -> list[str]:
    """Name the domains whose held-out split became too large, because their documents are few."""
    train, calibration, validation = (counts[split].bytes for split in SPLITS)
    whole = train + calibration + validation
    # Validation is dealt first, so calibration is a share of the remaining text.
    shares = np.maximum(validation / whole, calibration / (whole - validation))
    return [
        f"{_shown(domain)} {share:.1%}"
        for domain, share in zip(corpus.domains, shares, strict=True)
        if share > ROUNDING * config.max_holdout
    ]


def _shown(domain: str) -> str:
    """Return the name of a domain, which may be any text, in a few printable characters."""
    text = "".join(char if char.isprintable() else "·" for char in domain) or "''"
    return text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 3]}..."


def _listed(names: list[str]) -> str:
    return ", ".join(names[:MOST_DOMAINS]) + ", ..." * (len(names) > MOST_DOMAINS)


def _lines_of(corpus: Corpus) -> list[tuple[str, slice]]:
    """Return the name of each line and the domains that it sums."""
    number = len(corpus.domains)
    # Beyond the limit the last line sums all domains that have none of their own.
    if number <= MOST_DOMAINS:
        alone, rest = number, []
    else:
        alone = MOST_DOMAINS - 1
        rest = [(f"{number - alone} other domains", slice(alone, number))]
    return [(_shown(corpus.domains[tag]), slice(tag, tag + 1)) for tag in range(alone)] + rest


def _overlap(corpus: Corpus, place: slice) -> str:
    return f"{max(corpus.overlap[domain] for domain in corpus.domains[place]):.1%}"
