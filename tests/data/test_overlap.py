import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.data.documents import Document
from bench.data.overlap import _RUN, _WORD, NGRAM, drop_near_duplicates, overlap

# Few words, so that long runs recur by chance.
texts = st.lists(st.text(alphabet="aB \n", max_size=120), max_size=6)


def naive_grams(text: str) -> list[tuple[str, ...]]:
    words = re.findall(r"[0-9A-Za-z_]+", text.lower())
    return [tuple(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1)]


@given(texts, texts, texts)
def test_overlap_counts_what_sets_of_word_tuples_count(
    first: list[str], second: list[str], training: list[str]
) -> None:
    validation = {"first": first, "second": second}
    found = overlap(
        {
            domain: [Document("", domain, text) for text in parts]
            for domain, parts in validation.items()
        },
        [Document("", "first", text) for text in training],
    )
    known = {gram for text in training for gram in naive_grams(text)}
    for domain, parts in validation.items():
        grams = [gram for text in parts for gram in naive_grams(text)]
        expected = sum(gram in known for gram in grams) / len(grams) if grams else 0.0
        assert found[domain] == pytest.approx(expected)


STARTS = {"Chinese": 0x4E00, "Japanese": 0x30A0, "Thai": 0x0E01, "Burmese": 0x1000, "Khmer": 0x1780}


@pytest.mark.parametrize("script", ["words", *STARTS])
def test_shared_sentences_show_in_scripts_without_spaces_too(script: str) -> None:
    """Documents share 30 sentences and have 3 of their own: 0.9 of each occurs in the others."""
    draw = random.Random(script)

    def sentence() -> str:
        if script == "words":
            return " ".join(f"w{draw.randrange(10**6)}" for _ in range(18)) + ". "
        return "".join(chr(STARTS[script] + draw.randrange(46)) for _ in range(18)) + "\u3002"

    shared = [sentence() for _ in range(30)]
    documents = [
        Document(str(i), "x", "".join(shared + [sentence() for _ in range(3)])) for i in range(20)
    ]
    found = overlap({"x": documents[:5]}, documents[5:])
    assert 0.87 < found["x"] < 0.93


@pytest.mark.parametrize(
    "text", ["Straße größer", "привет мир", "안녕 세상", "مرحبا بالعالم", "नमस्ते दुनिया", "😀x"]
)
def test_scripts_with_spaces_keep_their_words(text: str) -> None:
    assert _WORD.findall(text.encode().lower()) == _RUN.findall(text.encode().lower())


def test_each_character_of_a_script_without_spaces_is_a_word() -> None:
    text = "abc中文字ไทย𠀀x_1"
    words = [word.decode() for word in _WORD.findall(text.encode())]
    assert words == ["abc", *"中文字ไทย𠀀", "x_1"]


def test_overlap_ignores_case_and_punctuation_and_keeps_other_scripts() -> None:
    words = [
        "Der",
        "Fluß",
        "läuft",
        "durch",
        "das",
        "Tal",
        "и",
        "река",
        "течёт",
        "к",
        "морю",
        "again",
        "now",
    ]
    assert overlap(
        {"x": [Document("", "x", " ".join(words))]},
        [Document("", "x", ", ".join(words).replace("Der", "DER"))],
    ) == {"x": 1.0}
    assert overlap(
        {"x": [Document("", "x", " ".join(words))]}, [Document("", "x", " ".join(words[::-1]))]
    ) == {"x": 0.0}


def test_near_duplicates_go_and_the_rest_stays_in_order() -> None:
    base = [f"w{i}" for i in range(100)]
    edited = [*base[:50], "new", *base[51:]]
    half = [*base[:50], *(f"v{i}" for i in range(50))]
    documents = [
        Document(name, "x", " ".join(words))
        for name, words in {"base": base, "edited": edited, "half": half}.items()
    ]
    # Of 88 13-grams, `edited` shares 75 with `base` and `half` 38.
    assert [d.name for d in drop_near_duplicates(documents, 0.5)] == ["base", "half"]
    assert [d.name for d in drop_near_duplicates(documents, 75 / 88)] == ["base", "edited", "half"]
    assert [d.name for d in drop_near_duplicates(documents, 37 / 88)] == ["base"]
