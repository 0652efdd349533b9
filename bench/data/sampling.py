"""Draw training batches and evaluation windows, and count tokens.

A batch is a pure function of (seed, step), so a resumed run sees the same data.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.data.corpus import Corpus, Split
from bench.errors import UserError

MAX_BIGRAM_VOCAB = 1024
# Tokens per pass over a memory-mapped split.
_CHUNK = 2**22


@dataclass(frozen=True, eq=False)
class Batch:
    """Training sequences.

    Attributes:
        tokens: token ids, int64 `[batch, seq + 1]`.
        tags: domain of each token, int64 `[batch, seq + 1]`.
        documents: document of each token in the split, int64 `[batch, seq + 1]`.
    """

    tokens: NDArray[np.int64]
    tags: NDArray[np.int64]
    documents: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Windows:
    """Fixed sequences for evaluation.

    Attributes:
        tokens: token ids, int64 `[window, seq + 1]`.
        tags: domain of each window, int64 `[window]`.
        documents: document of each token in the split, int64 `[window, seq + 1]`.
    """

    tokens: NDArray[np.int64]
    tags: NDArray[np.int64]
    documents: NDArray[np.int64]


def train_batch(split: Split, *, seed: int, step: int, batch_size: int, seq_len: int) -> Batch:
    """Draw `batch_size` sequences of `seq_len` + 1 tokens, each from one domain.

    Domains take turns from a random start. So each has an equal share in expectation, and in every
    batch up to one sequence. Only the raw output of Philox is used: NumPy promises never to change
    it, but not its distributions.

    Raises:
        UserError: a domain is shorter than one sequence.
    """
    ranges = np.array(split.domain_ranges, np.int64)
    room = ranges[:, 1] - ranges[:, 0] - seq_len
    if room.min() < 1:
        raise UserError(
            f"seq_len {seq_len} leaves no place in a domain of {room.min() + seq_len} tokens:"
            " choose a smaller one."
        )
    # One draw for the first domain, then one per sequence for its start.
    key = hashlib.sha256(f"train_batch/{seed}/{step}".encode()).digest()
    raw = np.random.Philox(key=np.frombuffer(key, "<u8", 2)).random_raw(batch_size + 1)
    tags = ((raw[0] % np.uint64(len(ranges))).astype(np.int64) + np.arange(batch_size)) % len(
        ranges
    )
    places = (room[tags] - 1) // split.stride + 1
    starts = ranges[tags, 0] + (raw[1:] % places.astype(np.uint64)).astype(np.int64) * split.stride
    positions = starts[:, None] + np.arange(seq_len + 1)
    return Batch(
        split.tokens[positions].astype(np.int64),
        np.repeat(tags[:, None], seq_len + 1, axis=1),
        split.documents_at(positions),
    )


def windows(split: Split, *, seq_len: int, per_domain: int | None = None) -> Windows:
    """Choose fixed windows without overlap, the same number from each domain.

    A domain is cut into windows of `seq_len` + 1 tokens end to end. The first window of each
    document is taken before the second of any, so that the windows cover as many documents as
    possible. A window may run over the end of a document, never over the end of a domain.

    Args:
        split: the split to cut.
        seq_len: predicted tokens per window.
        per_domain: windows per domain; None for as many as the smallest domain holds.

    Raises:
        UserError: a domain holds fewer windows.
    """
    size = seq_len + 1
    available = min((stop - start) // size for start, stop in split.domain_ranges)
    count = available if per_domain is None else per_domain
    if not 1 <= count <= available:
        raise UserError(
            f"{count} windows of {size} tokens a domain were asked for: allowed are 1 to"
            f" {available}."
        )
    starts = np.concatenate(
        [_starts(split, start, stop, size, count) for start, stop in split.domain_ranges]
    )
    positions = starts[:, None] + np.arange(size)
    documents = split.documents_at(positions)
    return Windows(
        split.tokens[positions].astype(np.int64),
        split.document_tags[documents[:, 0]].astype(np.int64),
        documents,
    )


def _starts(split: Split, start: int, stop: int, size: int, count: int) -> NDArray[np.int64]:
    """Return the starts of `count` windows of one domain, in order of position."""
    grid = start + size * np.arange((stop - start) // size)
    # A window belongs to the document at its middle; its rank is its place in that document.
    owner = split.documents_at(grid + size // 2)
    rank = np.arange(len(grid)) - np.searchsorted(owner, owner)
    # Take all windows of the lower ranks, and some of the last rank, evenly spread.
    last = np.sort(rank)[count - 1]
    sure, maybe = grid[rank < last], grid[rank == last]
    spread = np.linspace(0, len(maybe) - 1, count - len(sure)).round().astype(np.int64)
    return np.sort(np.concatenate([sure, maybe[spread]]))


def statistics(corpus: Corpus) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """Count the ids, and the pairs of ids, of the training split.

    Returns:
        Occurrences of each id `[vocab]`, and of each (previous, current) pair `[vocab, vocab]`.
        The pairs are None if the vocabulary is larger than 1024.
    """
    tokens, size = corpus.train.tokens, corpus.vocab_size
    unigram = np.bincount(tokens, minlength=size)
    if size > MAX_BIGRAM_VOCAB:
        return unigram, None
    bigram = np.zeros(size * size, np.int64)
    for start in range(0, len(tokens) - 1, _CHUNK):
        # Chunks share one token, so that no pair is lost between them.
        part = tokens[start : start + _CHUNK + 1].astype(np.int64)
        bigram += np.bincount(part[:-1] * size + part[1:], minlength=size * size)
    return unigram, bigram.reshape(size, size)
