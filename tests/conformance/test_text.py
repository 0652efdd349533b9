"""The text of the checks: it follows its rule, and is counted and cut as it lies."""

from collections import Counter
from itertools import pairwise

import numpy as np

from bench.conformance.text import DOCUMENTS, LENGTH, counts_of, ruled_text, windows_of
from bench.rng import generator

VOCAB, DOMAINS = 64, 4
TEXT = ruled_text(3, VOCAB, DOMAINS)


def test_the_next_token_follows_the_rule_of_its_domain_but_for_noise() -> None:
    lines = TEXT.tokens.reshape(DOMAINS, LENGTH).astype(int).tolist()
    for domain, line in enumerate(lines):
        kept = [b == (5 * a + 7 * domain + 1) % VOCAB for a, b in pairwise(line)]
        assert abs(np.mean(kept) - (0.75 + 0.25 / VOCAB)) < 0.03
    assert np.array_equal(ruled_text(3, VOCAB, DOMAINS).tokens, TEXT.tokens)
    assert not np.array_equal(ruled_text(4, VOCAB, DOMAINS).tokens, TEXT.tokens)


def test_documents_share_a_domain_evenly() -> None:
    assert set(np.diff(TEXT.offsets)) == {LENGTH // DOCUMENTS}
    assert Counter(TEXT.document_tags.tolist()) == dict.fromkeys(range(DOMAINS), DOCUMENTS)


def test_counts_are_those_of_a_loop() -> None:
    found, ids = counts_of(TEXT, VOCAB), TEXT.tokens.tolist()
    single, pairs = Counter(ids), Counter(pairwise(ids))
    assert found.unigram.tolist() == [single[token] for token in range(VOCAB)]
    assert found.bigram is not None
    assert found.bigram[5].tolist() == [pairs[5, token] for token in range(VOCAB)]
    assert int(found.bigram.sum()) == len(ids) - 1


def test_a_window_is_a_stretch_of_its_domain() -> None:
    found = windows_of(TEXT, 10, 32, generator(0, "windows"))
    assert found.tags.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    for ids, tag, documents in zip(found.tokens, found.tags, found.documents, strict=True):
        stretch = TEXT.tokens[tag * LENGTH : (tag + 1) * LENGTH].tobytes()
        assert ids.astype(np.uint8).tobytes() in stretch and len(ids) == 33
        assert set(TEXT.document_tags[documents]) == {tag}
