"""Hold a built corpus: memory-mapped tokens with the domain and the document of each."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bench.config.data import Route
from bench.data.documents import Intake
from bench.data.tokenizer import Tokenizer


@dataclass(frozen=True, eq=False)
class Split:
    """Documents end to end, ordered by domain. Each ends with the end-of-document token.

    Attributes:
        tokens: token ids, `[token]`, uint8 or uint16, memory-mapped.
        offsets: first token of each document, then the length of `tokens`, `[document + 1]`.
        document_tags: domain of each document, ascending, uint8 `[document]`.
        document_names: name of each document.
        stride: training sequences start at multiples of it, counted within their domain.
    """

    tokens: NDArray[np.unsignedinteger]
    offsets: NDArray[np.int64]
    document_tags: NDArray[np.uint8]
    document_names: tuple[str, ...]
    stride: int = 1

    @cached_property
    def tags(self) -> NDArray[np.uint8]:
        """Domain of each token, `[token]`. Computed at first use."""
        return np.repeat(self.document_tags, np.diff(self.offsets))

    @cached_property
    def document(self) -> NDArray[np.int32]:
        """Index of each token's document, `[token]`. Computed at first use."""
        return np.repeat(np.arange(len(self.document_tags), dtype=np.int32), np.diff(self.offsets))

    def documents_at(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the document index at each position, any shape, without an array of the split."""
        return np.searchsorted(self.offsets, positions, side="right") - 1

    @cached_property
    def domain_ranges(self) -> tuple[tuple[int, int], ...]:
        """First token and end of each domain. Domains lie end to end."""
        # Tags ascend, so each domain is one run of documents, and a search finds its bounds.
        bounds = np.searchsorted(self.document_tags, np.arange(int(self.document_tags[-1]) + 2))
        ends = [int(self.offsets[bound]) for bound in bounds]
        return tuple(pairwise(ends))


@dataclass(frozen=True, eq=False)
class Corpus:
    """Tokens, splits and tags of one data configuration.

    Attributes:
        domains: name of each tag.
        headline_domains: domains whose overlap is at most `max_overlap`. The headline is the
            unweighted mean over them.
        overlap: domain -> share of its validation 13-grams that occur in training
            (`bench.data.overlap`).
        train: split for training.
        calibration: split for setting thresholds.
        validation: split for measuring losses.
        content_hash: SHA-256 over tokens, tags, document bounds, domain names and vocabulary.
        tokenizer: encodes further text.
        truth: returns the right path of each token of sequences `[..., seq]` from the tokens up to
            it, -1 if any path is right; None if the right paths are unknown. Some routers may use
            it; it judges all others.
        route: kind of paths that `truth` names: cheap or full ("depth"), or experts.
        intake: counts from reading the text; None for generated text.
    """

    domains: tuple[str, ...]
    headline_domains: tuple[str, ...]
    overlap: dict[str, float]
    train: Split
    calibration: Split
    validation: Split
    content_hash: str
    tokenizer: Tokenizer
    truth: Callable[[NDArray[np.integer]], NDArray[np.int64]] | None = None
    route: Route | None = None
    intake: Intake | None = None

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return len(self.tokenizer.pieces)

    @property
    def token_bytes(self) -> NDArray[np.int64]:
        """UTF-8 bytes of each id, `[vocab]`; 0 for the end of a document."""
        return self.tokenizer.token_bytes

    def encode(self, text: str) -> NDArray[np.unsignedinteger]:
        """Return the token ids of `text`, `[token]`."""
        return self.tokenizer.encode_batch([text])[0]

    def decode(self, token_ids: Iterable[int]) -> list[str]:
        """Return one printable string per token."""
        return self.tokenizer.decode(token_ids)
