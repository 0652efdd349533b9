"""Text to token ids and back: UTF-8 bytes, or a byte-level BPE.

Either way every id stands for a run of bytes, so losses compare in bits per byte, and the last id
ends a document.
"""

import codecs
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.config.data import DataConfig
from bench.errors import UserError

TOKENIZER_FILE = "tokenizer.json"
_BPE_TRAINING_BYTES = 2**23
_VISIBLE = {"\n": "⏎\n", "\t": "⇥"}


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """Encodes text; knows what each id stands for.

    Attributes:
        pieces: the bytes of each id. The last is empty: end of document.
        encode_batch: texts -> their ids, one array a text, without the end of document.
        file: serialised form to store beside the tokens, or None where there is nothing to store.
    """

    pieces: tuple[bytes, ...]
    encode_batch: Callable[[Sequence[str]], list[NDArray[np.unsignedinteger]]]
    file: str | None = None

    @property
    def end_of_document(self) -> int:
        """Id that closes every document. Among bytes it is 0xFF, which UTF-8 never uses."""
        return len(self.pieces) - 1

    @property
    def dtype(self) -> type[np.unsignedinteger]:
        """Smallest unsigned type that holds every id."""
        return np.uint8 if len(self.pieces) <= 256 else np.uint16

    @cached_property
    def token_bytes(self) -> NDArray[np.int64]:
        """Bytes that each id stands for, `[vocab]`."""
        return np.array([len(piece) for piece in self.pieces], np.int64)

    def decode(self, token_ids: Iterable[int]) -> list[str]:
        """One printable string a token.

        A character split over tokens is shown at the last of them.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        return [
            _printable(decoder.decode(self.pieces[int(token)])) if self.pieces[int(token)] else "␄"
            for token in token_ids
        ]


def _printable(text: str) -> str:
    return "".join(_VISIBLE.get(char, char if char.isprintable() else "·") for char in text)


def byte_tokenizer() -> Tokenizer:
    """One id a byte."""

    def encode(texts: Sequence[str]) -> list[NDArray[np.unsignedinteger]]:
        return [np.frombuffer(text.encode("utf-8", errors="replace"), np.uint8) for text in texts]

    return Tokenizer((*(bytes([value]) for value in range(255)), b""), encode)


def train_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE of at most `vocab_size` ids, learnt from the first 8 MiB of `texts`."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, pre_tokenizers, trainers

    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(_head(texts, _BPE_TRAINING_BYTES), trainer)
    return load_bpe(backend.to_str())


def load_bpe(serialised: str) -> Tokenizer:
    """A tokenizer from its serialised form.

    Tokens that stand for no text, as GPT-2's end of text, are left out.
    """
    from tokenizers import Tokenizer as Backend

    backend = Backend.from_str(serialised)
    backend.encode_special_tokens = True  # as the text that they are written with
    special = backend.get_added_tokens_decoder()
    byte_of = {char: value for value, char in _byte_characters().items()}
    vocabulary = sorted(
        (item for item in backend.get_vocab().items() if item[1] not in special),
        key=lambda item: item[1],
    )
    pieces = (*(bytes(byte_of[char] for char in token) for token, _ in vocabulary), b"")

    def encode(texts: Sequence[str]) -> list[NDArray[np.unsignedinteger]]:
        return [np.array(encoding.ids, np.uint16) for encoding in backend.encode_batch(list(texts))]

    return Tokenizer(pieces, encode, serialised)


def make_tokenizer(config: DataConfig, training: Iterable[str]) -> Tokenizer:
    """The tokenizer that `config` asks for, trained on the training texts where it is learnt.

    Raises:
        UserError: the given file is no byte-level BPE, or has another number of ids.
    """
    if config.tokenizer == "bytes":
        return byte_tokenizer()
    if config.tokenizer_file is None:
        return train_bpe(training, config.vocab_size)
    try:
        found = load_bpe(tokenizer_text(config))
    except Exception as error:  # tokenizers raises nothing narrower
        raise UserError(
            f"tokenizer_file {config.tokenizer_file!r} is no byte-level BPE ({error!r}): give a tokenizer.json."
        ) from None
    if len(found.pieces) != config.vocab_size:
        raise UserError(
            f"vocab_size is {config.vocab_size}; tokenizer_file {config.tokenizer_file!r} has {len(found.pieces)} ids: set vocab_size so."
        )
    return found


def tokenizer_text(config: DataConfig) -> str:
    """What stands in the given tokenizer file."""
    try:
        return Path(str(config.tokenizer_file)).expanduser().read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(
            f"tokenizer_file {config.tokenizer_file!r} cannot be read ({error}): give an existing tokenizer.json."
        ) from None


def stored_tokenizer(directory: Path) -> Tokenizer:
    """The tokenizer of a built corpus."""
    file = directory / TOKENIZER_FILE
    return load_bpe(file.read_text(encoding="utf-8")) if file.exists() else byte_tokenizer()


def _byte_characters() -> dict[int, str]:
    """The printable character that byte-level BPE writes for each byte (Radford et al. 2019,
    GPT-2).
    """
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
