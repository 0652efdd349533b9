"""Encode text to token ids and back: UTF-8 bytes, or a byte-level BPE.

In both, every id is a run of bytes, so losses can be compared in bits per byte. The last id
ends a document.
"""

import codecs
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.config.data import DataConfig
from bench.errors import UserError, told

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

TOKENIZER_FILE = "tokenizer.json"
_BPE_TRAINING_BYTES = 2**23
_VISIBLE = {"\n": "⏎\n", "\t": "⇥"}


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """Encodes text, and knows the bytes of each id.

    Attributes:
        pieces: the bytes of each id. The last is empty: end of document.
        encode_batch: texts -> ids, one array per text, without the end of document.
        file: serialised form to store with the tokens, or None if there is nothing to store.
    """

    pieces: tuple[bytes, ...]
    encode_batch: Callable[[Sequence[str]], list[NDArray[np.unsignedinteger]]]
    file: str | None = None

    @property
    def end_of_document(self) -> int:
        """Id that ends every document. For bytes it is 0xFF, which UTF-8 never uses."""
        return len(self.pieces) - 1

    @property
    def dtype(self) -> type[np.unsignedinteger]:
        """Smallest unsigned type that holds every id."""
        return np.uint8 if len(self.pieces) <= 256 else np.uint16

    @cached_property
    def token_bytes(self) -> NDArray[np.int64]:
        """Number of bytes of each id, `[vocab]`."""
        return np.array([len(piece) for piece in self.pieces], np.int64)

    def decode(self, token_ids: Iterable[int]) -> list[str]:
        """Return one printable string per token.

        A character that is split over tokens is shown at the last of them.
        """
        # The incremental decoder keeps the first bytes of a split character until the rest comes.
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        return [
            _printable(decoder.decode(self.pieces[int(token)])) if self.pieces[int(token)] else "␄"
            for token in token_ids
        ]

    def text(self, token_ids: Iterable[int]) -> str:
        """Return the text of some tokens. Bytes that are no UTF-8 become replacement characters."""
        return b"".join(self.pieces[int(token)] for token in token_ids).decode("utf-8", "replace")


def _printable(text: str) -> str:
    return "".join(_VISIBLE.get(char, char if char.isprintable() else "·") for char in text)


def byte_tokenizer() -> Tokenizer:
    """Return the tokenizer with one id per byte."""

    def encode(texts: Sequence[str]) -> list[NDArray[np.unsignedinteger]]:
        return [np.frombuffer(text.encode("utf-8", errors="replace"), np.uint8) for text in texts]

    return Tokenizer((*(bytes([value]) for value in range(255)), b""), encode)


def train_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learn a byte-level BPE of at most `vocab_size` ids from the first 8 MiB of `texts`."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, pre_tokenizers, trainers

    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    # One id is reserved for the end of a document.
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(_head(texts, _BPE_TRAINING_BYTES), trainer)
    return load_bpe(backend.to_str())


def load_bpe(serialised: str) -> Tokenizer:
    """Build a tokenizer from its serialised form.

    Tokens of text keep their order and get ids without gaps. Special tokens, such as GPT-2's end of
    text, get none. Saved truncation, padding, dropout and templates of special tokens are ignored.

    Raises:
        ValueError: this is no byte-level BPE: it is another model, or a token has no bytes.
    """
    backend = _plain_backend(serialised)
    added = backend.get_added_tokens_decoder()
    written = sorted(
        (id, token)
        for token, id in backend.get_vocab().items()
        if id not in added or not added[id].special
    )
    # Added tokens are written as plain text, all others with one character per byte.
    pieces = [token.encode("utf-8") if id in added else _bytes_of(token) for id, token in written]
    # Map the file's ids to ours; ids without text map to an unused one.
    unused = len(pieces)
    ours = np.full(max(backend.get_vocab().values()) + 1, unused, np.int64)
    ours[[id for id, _ in written]] = np.arange(unused)

    def encode(texts: Sequence[str]) -> list[NDArray[np.unsignedinteger]]:
        clean = [text.encode("utf-8", errors="replace") for text in texts]
        encodings = backend.encode_batch(
            [data.decode("utf-8") for data in clean], add_special_tokens=False
        )
        found = [ours[np.array(encoding.ids, np.int64)] for encoding in encodings]
        # A normalizer may have changed the text, and then losses per byte would be wrong.
        for data, ids in zip(clean, found, strict=True):
            back = b"".join(pieces[token] for token in ids.tolist() if token < unused)
            if back != data:
                raise _altered(data, back)
        return [ids.astype(np.uint16) for ids in found]

    return Tokenizer((*pieces, b""), encode, serialised)


def _plain_backend(serialised: str) -> "Backend":
    """Return the library's tokenizer, without settings that change the text or draw ids.

    Raises:
        ValueError: its model is no BPE.
    """
    from tokenizers import Tokenizer as Backend
    from tokenizers import models

    backend = Backend.from_str(serialised)
    if not isinstance(backend.model, models.BPE):
        raise ValueError(f"its model is {type(backend.model).__name__}")
    # The file may hold settings that cut, pad or drop, which a model would train with.
    backend.no_truncation()
    backend.no_padding()
    backend.model.dropout = None
    # A special token that occurs in the text is encoded like any other text.
    backend.encode_special_tokens = True
    return backend


def _bytes_of(token: str) -> bytes:
    try:
        return bytes(_BYTE_OF[char] for char in token)
    except KeyError as error:
        raise ValueError(f"its token {token!r} has a character that is no byte: {error}") from None


def _altered(text: bytes, back: bytes) -> UserError:
    """Return the error for a text that is not decoded to itself; it shows the first difference."""
    place = next(
        (i for i, (a, b) in enumerate(zip(text, back, strict=False)) if a != b),
        min(len(text), len(back)),
    )
    start = max(0, place - 10)
    given, found = (part[start : place + 20].decode("utf-8", "replace") for part in (text, back))
    return UserError(
        f"The tokenizer does not give the text back: {given!r} becomes {found!r}. Losses per byte"
        " need a byte-level BPE that keeps each byte: remove normalizer and add_prefix_space from"
        " tokenizer_file, or give another."
    )


def make_tokenizer(config: DataConfig, training: Iterable[str]) -> Tokenizer:
    """Return the tokenizer of a configuration; a learnt one learns from the training texts.

    Raises:
        UserError: the given file is no byte-level BPE, or has another number of ids. A tokenizer
            that alters text is detected when it encodes that text.
    """
    if config.tokenizer == "bytes":
        return byte_tokenizer()
    if config.tokenizer_file is None:
        return train_bpe(training, config.vocab_size)
    try:
        found = load_bpe(tokenizer_text(config))
    except UserError:
        raise
    except Exception as error:  # the library raises nothing narrower
        raise UserError(
            f"tokenizer_file {config.tokenizer_file!r} is no byte-level BPE ({told(error)}):"
            " give a tokenizer.json of one, such as GPT-2's."
        ) from None
    if len(found.pieces) != config.vocab_size:
        raise UserError(
            f"vocab_size is {config.vocab_size}; tokenizer_file {config.tokenizer_file!r} has"
            f" {len(found.pieces)} ids (tokens of text, and the end of a document):"
            f" set vocab_size to {len(found.pieces)}."
        )
    return found


def tokenizer_text(config: DataConfig) -> str:
    """Return the text of the given tokenizer file."""
    try:
        return Path(str(config.tokenizer_file)).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(
            f"tokenizer_file {config.tokenizer_file!r} cannot be read ({error}): give an existing"
            " tokenizer.json."
        ) from None


def stored_tokenizer(directory: Path) -> Tokenizer:
    """Return the tokenizer of a built corpus."""
    file = directory / TOKENIZER_FILE
    return load_bpe(file.read_text(encoding="utf-8")) if file.exists() else byte_tokenizer()


def _byte_characters() -> dict[int, str]:
    """Return the printable character that byte-level BPE writes for each byte (GPT-2)."""
    # Printable bytes are their own characters; the others take the characters from 256 on.
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [value for value in range(256) if value not in plain]
    return {value: chr(value) for value in plain} | {
        value: chr(256 + index) for index, value in enumerate(others)
    }


def _head(texts: Iterable[str], limit: int) -> Iterable[str]:
    for text in texts:
        if limit <= 0:
            return
        limit -= len(text.encode("utf-8", errors="replace"))
        yield text


_BYTE_OF = {char: value for value, char in _byte_characters().items()}
