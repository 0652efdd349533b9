import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import ByteLevelBPETokenizer, models, pre_tokenizers, processors, trainers
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


def saved(change: Callable[[dict[str, Any]], object] = lambda data: None, **training: Any) -> str:
    """A byte-level BPE as people have them: trained here, then changed as JSON."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
        **training,
    )
    backend.train_from_iterator(TRAINING, trainer)
    data = json.loads(backend.to_str())
    change(data)
    return json.dumps(data)


def padding(data: dict[str, Any]) -> None:
    backend = Backend.from_str(json.dumps(data))
    backend.enable_padding(length=512, pad_id=0, pad_token="!")
    backend.enable_truncation(max_length=8)
    data |= json.loads(backend.to_str())


def template(data: dict[str, Any]) -> None:
    backend = Backend.from_str(json.dumps(data))
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    data |= json.loads(backend.to_str())


def other_order(data: dict[str, Any]) -> None:
    """Ids from 10 on, with gaps, against the order of the vocabulary."""
    vocabulary = data["model"]["vocab"]
    data["model"]["vocab"] = {token: 1000 - 2 * vocabulary[token] for token in vocabulary}


def added_text(data: dict[str, Any]) -> None:
    """GPT-NeoX's runs of spaces: added tokens for pieces of text, written as they are."""
    entry = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    data["added_tokens"] = [entry | {"id": 300, "content": "é  ", "special": False}]


@pytest.mark.parametrize(
    ("change", "special"),
    [
        (lambda data: None, []),
        (lambda data: None, ["<|endoftext|>"]),
        (lambda data: None, ["<s>", "<pad>", "</s>", "<unk>"]),
        (padding, []),
        (template, ["<s>", "</s>"]),
        (other_order, []),
        (added_text, []),
        (lambda data: data["model"].update(dropout=0.5), []),
    ],
)
def test_a_given_file_stands_for_exactly_the_bytes_of_the_text(
    change: Callable[[dict[str, Any]], object], special: list[str]
) -> None:
    found = load_bpe(saved(change, special_tokens=special))
    text = "".join(TRAINING) + "<s>the<|endoftext|> naïve café  é  漢\ud800"
    data = text.encode(errors="replace")
    (ids,) = found.encode_batch([text])
    assert b"".join(found.pieces[token] for token in ids) == data
    assert found.token_bytes[ids].sum() == len(data)
    assert found.end_of_document not in ids
    assert found.encode_batch([text])[0].tolist() == ids.tolist()
    assert len(ids) < 0.8 * len(data), "tokens are used, not bytes"
    assert found.pieces.count(b"") == 1
    if change is added_text:
        assert "é  ".encode() in [found.pieces[token] for token in ids]


def word_level(data: dict[str, Any]) -> None:
    words = {"[UNK]": 0, "the": 1, "cat": 2}
    data["model"] = {"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"}
    data["pre_tokenizer"] = {"type": "Whitespace"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data.update(normalizer={"type": "Lowercase"}), "'The cat' becomes 'the cat'"),
        (lambda data: data["pre_tokenizer"].update(add_prefix_space=True), "becomes ' The cat'"),
    ],
)
def test_a_file_that_alters_text_is_refused_in_one_line(
    change: Callable[[dict[str, Any]], object], said: str
) -> None:
    with pytest.raises(UserError, match=f"does not give the text back: .*{said}") as error:
        load_bpe(saved(change)).encode_batch(["The cat"])
    assert "\n" not in str(error.value)


def sentencepiece(data: dict[str, Any]) -> None:
    data["model"]["vocab"]["▁the"] = 500


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (sentencepiece, "its token '▁the' has a character that is no byte"),
        (word_level, "its model is WordLevel"),
    ],
)
def test_a_vocabulary_that_is_not_of_bytes_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text(saved(change), encoding="utf-8")
    config = {"path": "a.txt", "tokenizer": "bpe", "vocab_size": 300, "tokenizer_file": str(file)}
    with pytest.raises(UserError, match=f"no byte-level BPE.*{said}"):
        make_tokenizer(DataConfig.model_validate(config), [])


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"vocab_size": 301}, "vocab_size is 301; .* has 300 ids"),
        ({"tokenizer_file": "gone.json"}, "gone.json' cannot be read"),
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
