"""A built corpus: token arrays on disk, memory-mapped, with the domain and document of every token."""

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
    """Documents end to end, ordered by domain; each ends with the end-of-document token.

    Attributes:
        tokens: ids, `[token]`, uint8 or uint16, memory-mapped.
        offsets: first token of each document, and the length of `tokens`, `[document + 1]`.
        document_tags: domain of each document, ascending, uint8 `[document]`.
        document_names: name of each document.
        stride: training sequences start at multiples of it, within their domain.
    """

    tokens: NDArray[np.unsignedinteger]
    offsets: NDArray[np.int64]
    document_tags: NDArray[np.uint8]
    document_names: tuple[str, ...]
    stride: int = 1

    @cached_property
    def tags(self) -> NDArray[np.uint8]:
        """Domain of each token, `[token]`. Made when first asked for."""
        return np.repeat(self.document_tags, np.diff(self.offsets))

    @cached_property
    def document(self) -> NDArray[np.int32]:
        """Index of each token's document, `[token]`. Made when first asked for."""
        return np.repeat(np.arange(len(self.document_tags), dtype=np.int32), np.diff(self.offsets))

    def documents_at(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Document index at each position, any shape, without an array over the whole split."""
        return np.searchsorted(self.offsets, positions, side="right") - 1

    @cached_property
    def domain_ranges(self) -> tuple[tuple[int, int], ...]:
        """First token and end of each domain's stretch; domains lie end to end."""
        bounds = np.searchsorted(self.document_tags, np.arange(int(self.document_tags[-1]) + 2))
        ends = [int(self.offsets[bound]) for bound in bounds]
        return tuple(pairwise(ends))


@dataclass(frozen=True, eq=False)
class Corpus:
    """Tokens, splits and tags of one data configuration.

    Attributes:
        domains: name of each tag.
        headline_domains: those whose overlap is at most the configured 5 %: the headline is the
            unweighted mean over them.
        overlap: domain -> share of validation 13-grams that stand in training
            (`bench.data.overlap`).
        train: what models learn from.
        calibration: where thresholds are set.
        validation: where losses are measured.
        content_hash: SHA-256 over tokens, tags, document bounds, domain names and vocabulary.
        tokenizer: encodes further text.
        truth: tells the right path of each token of sequences `[..., seq]` from the tokens up to
            it, -1 for any; None where nobody knows. For routers that may have it and for judging
            the others.
        route: what `truth` names: cheap or full paths ("depth"), or experts.
        intake: counts of its reading; None for text that is generated.
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
        """UTF-8 bytes that each id stands for, `[vocab]`; 0 for the end of a document."""
        return self.tokenizer.token_bytes

    def encode(self, text: str) -> NDArray[np.unsignedinteger]:
        """Token ids of `text`, `[token]`."""
        return self.tokenizer.encode_batch([text])[0]

    def decode(self, token_ids: Iterable[int]) -> list[str]:
        """One printable string a token."""
        return self.tokenizer.decode(token_ids)
