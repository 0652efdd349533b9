import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.data.documents import Document
from bench.data.overlap import NGRAM, drop_near_duplicates, overlap

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
