from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import ByteLevelBPETokenizer
from tokenizers import Tokenizer as Backend

from bench.config.data import DataConfig
from bench.data.tokenizer import Tokenizer, byte_tokenizer, load_bpe, make_tokenizer, train_bpe
from bench.errors import UserError

TRAINING = [
    "the cat sat on the mat\n" * 20,
    "größe und straße — naïve café\n" * 10,
    "def f(x):\n    return x + 1\n" * 10,
]


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    return train_bpe(TRAINING, 300)


unicode_text = st.text(alphabet=st.characters(exclude_categories=("Cs",)))


@given(unicode_text)
def test_bytes_are_utf8(text: str) -> None:
    tokenizer = byte_tokenizer()
    (ids,) = tokenizer.encode_batch([text])
    assert ids.tolist() == list(text.encode())
    assert tokenizer.end_of_document not in ids
    assert tokenizer.token_bytes[ids].sum() == len(text.encode())


@given(text=unicode_text)
def test_bpe_ids_stand_for_exactly_the_bytes_of_the_text(bpe: Tokenizer, text: str) -> None:
    (ids,) = bpe.encode_batch([text])
    assert b"".join(bpe.pieces[int(i)] for i in ids) == text.encode()
    assert bpe.token_bytes[ids].sum() == len(text.encode())
    assert bpe.end_of_document not in ids


def test_bpe_agrees_with_the_ready_made_byte_level_tokenizer(bpe: Tokenizer) -> None:
    reference = ByteLevelBPETokenizer()
    reference.train_from_iterator(
        TRAINING, vocab_size=299, min_frequency=0, special_tokens=[], show_progress=False
    )
    for text in [*TRAINING, "something else entirely"]:
        assert bpe.encode_batch([text])[0].tolist() == reference.encode(text).ids


def test_bpe_training_is_deterministic_and_survives_storage(bpe: Tokenizer) -> None:
    again = train_bpe(TRAINING, 300)
    assert again.file is not None
    assert again.file == bpe.file
    stored = load_bpe(again.file)
    assert stored.pieces == bpe.pieces
    assert len(bpe.pieces) == 300
    assert stored.encode_batch(TRAINING)[1].tolist() == bpe.encode_batch(TRAINING)[1].tolist()


@pytest.fixture(scope="module")
def like_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer as GPT-2's is published.

    A byte-level BPE whose last id is the special end of text.
    """
    backend = ByteLevelBPETokenizer()
    backend.train_from_iterator(
        TRAINING, vocab_size=299, min_frequency=0, special_tokens=[], show_progress=False
    )
    backend.add_special_tokens(["<|endoftext|>"])
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    backend.save(str(file))
    return file


def test_a_given_vocabulary_is_taken_as_it_is(like_gpt2: Path) -> None:
    reference = Backend.from_file(str(like_gpt2))
    config = DataConfig(
        path="a.txt", source="local", tokenizer="bpe", vocab_size=300, tokenizer_file=str(like_gpt2)
    )
    found = make_tokenizer(config, [])
    assert found.end_of_document == reference.token_to_id("<|endoftext|>") == 299
    assert found.pieces[-1] == b""
    for text in TRAINING:
        assert found.encode_batch([text])[0].tolist() == reference.encode(text).ids
    (written,) = found.encode_batch(["a<|endoftext|>b"])
    assert b"".join(found.pieces[token] for token in written) == b"a<|endoftext|>b"
    assert found.end_of_document not in written


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"vocab_size": 301}, "vocab_size is 301; .* has 300 ids"),
        ({"tokenizer_file": "gone.json"}, "'gone.json' cannot be read"),
    ],
)
def test_a_vocabulary_that_does_not_fit_is_refused(
    like_gpt2: Path, changes: dict[str, Any], error: str
) -> None:
    data = {
        "path": "a.txt",
        "tokenizer": "bpe",
        "vocab_size": 300,
        "tokenizer_file": str(like_gpt2),
    }
    with pytest.raises(UserError, match=error):
        make_tokenizer(DataConfig.model_validate(data | changes), [])


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="no byte-level BPE"):
        make_tokenizer(
            DataConfig(
                path="a.txt",
                source="local",
                tokenizer="bpe",
                vocab_size=300,
                tokenizer_file=str(tmp_path / "tokenizer.json"),
            ),
            [],
        )


def test_dtype_is_the_smallest_that_holds_every_id(bpe: Tokenizer) -> None:
    assert byte_tokenizer().dtype is np.uint8
    assert bpe.dtype is np.uint16


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_decode_gives_one_printable_string_a_token(bpe: Tokenizer, kind: str) -> None:
    tokenizer = byte_tokenizer() if kind == "bytes" else bpe
    text = "naïve 漢\tend"
    ids = [*tokenizer.encode_batch([text])[0].tolist(), tokenizer.end_of_document]
    strings = tokenizer.decode(ids)
    assert len(strings) == len(ids)
    assert "".join(strings) == "naïve 漢⇥end␄"


def test_decode_shows_line_ends_and_broken_bytes() -> None:
    tokenizer = byte_tokenizer()
    assert tokenizer.decode(b"a\n\x00") == ["a", "⏎\n", "·"]
    assert "".join(tokenizer.decode(b"\xe6\xbca")) == "�a"
