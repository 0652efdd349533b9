"""Loss on repeated n-grams against a naive search, and the length of the n-gram."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.data import Windows
from bench.evaluation.recall import recall, repeated

TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=30)


@given(TOKENS, st.integers(2, 4))
def test_repeats_are_those_of_a_search(tokens: list[int], order: int) -> None:
    found = repeated(np.array([tokens]), order)[0]
    for end in range(len(tokens)):
        gram = tokens[max(0, end - order + 1) : end + 1]
        earlier = [tokens[other - order + 1 : other + 1] for other in range(order - 1, end)]
        assert found[end] == (len(gram) == order and gram in earlier)


@pytest.mark.parametrize(("size", "order"), [(1, 4), (2, 2), (5, 2)])
def test_the_loss_is_split_by_repeats_of_at_least_four_bytes(size: int, order: int) -> None:
    tokens = np.array([[1, 2, 3, 4, 5, 1, 2, 3, 4, 6]])
    nats = np.arange(9.0)[None]
    found = recall(nats, Windows(tokens, np.zeros(1, int), np.zeros_like(tokens)), np.full(7, size))
    # 1 2 3 4 ends again at the 4; of pairs, also those that end at the 2 and the 3.
    hits = [7] if order == 4 else [5, 6, 7]
    rest = [n for n in range(9) if n not in hits]
    assert (found.order, found.share) == (order, pytest.approx(len(hits) / 9))
    assert found.recalled == pytest.approx(np.mean(hits))
    assert found.rest == pytest.approx(np.mean(rest))


def test_a_text_without_repeats_has_no_recalled_loss() -> None:
    tokens = np.arange(6)[None]
    found = recall(np.ones((1, 5)), Windows(tokens, np.zeros(1, int), tokens), np.ones(6, int))
    assert (found.share, found.recalled, found.rest) == (0.0, None, 1.0)
