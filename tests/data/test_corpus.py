"""Documents, domains and tags of tokens, against loops over documents."""

from itertools import pairwise

import numpy as np
import pytest

from bench.data import Split

LENGTHS, TAGS = (3, 1, 4, 2, 5), (0, 0, 2, 2, 2)


@pytest.fixture
def split() -> Split:
    offsets = np.array([0, *np.cumsum(LENGTHS)], np.int64)
    tokens = np.arange(sum(LENGTHS), dtype=np.uint8)
    return Split(tokens, offsets, np.array(TAGS, np.uint8), tuple("abcde"))


def test_every_token_has_the_document_and_the_domain_that_it_lies_in(split: Split) -> None:
    places = [n for n, length in enumerate(LENGTHS) for _ in range(length)]
    assert split.document.tolist() == places
    assert split.tags.tolist() == [TAGS[n] for n in places]
    some = np.array([[0, 3], [14, 7]])
    assert split.documents_at(some).tolist() == [[places[p] for p in row] for row in some]


def test_domains_lie_end_to_end_and_one_without_documents_is_empty(split: Split) -> None:
    assert split.domain_ranges == ((0, 4), (4, 4), (4, 15))
    assert all(stop == start for (_, stop), (start, _) in pairwise(split.domain_ranges))
