import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import ByteLevelBPETokenizer

from bench.data.tokenizer import Tokenizer, byte_tokenizer, load_bpe, train_bpe

TRAINING = ["the cat sat on the mat\n" * 20, "größe und straße — naïve café\n" * 10, "def f(x):\n    return x + 1\n" * 10]


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
    reference.train_from_iterator(TRAINING, vocab_size=299, min_frequency=0, special_tokens=[], show_progress=False)
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
