import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.data.corpus import Split
from bench.data.sampling import train_batch, windows
from bench.errors import UserError


def make_split(lengths: list[list[int]]) -> Split:
    """A split whose token at position p is p modulo 251.

    `lengths[domain]` are the lengths of its documents.
    """
    flat = [length for domain in lengths for length in domain]
    return Split(
        tokens=(np.arange(sum(flat)) % 251).astype(np.uint8),
        offsets=np.concatenate([[0], np.cumsum(flat)]).astype(np.int64),
        document_tags=np.repeat(
            np.arange(len(lengths)), [len(domain) for domain in lengths]
        ).astype(np.uint8),
        document_names=tuple(str(i) for i in range(len(flat))),
    )


SPLIT = make_split([[50] * 40, [300] * 10, [1000]])
lengths = st.lists(
    st.lists(st.integers(1, 60), min_size=1, max_size=12).filter(lambda domain: sum(domain) >= 10),
    min_size=1,
    max_size=4,
)


@given(lengths)
def test_tags_and_documents_agree_with_a_loop(lengths: list[list[int]]) -> None:
    split = make_split(lengths)
    tags, documents = [], []
    for domain, domain_lengths in enumerate(lengths):
        for length in domain_lengths:
            documents += [max(documents, default=-1) + 1] * length
            tags += [domain] * length
    assert split.tags.tolist() == tags
    assert split.document.tolist() == documents
    assert split.documents_at(np.arange(len(tags), dtype=np.int64)).tolist() == documents
    assert split.domain_ranges == tuple(
        (tags.index(d), len(tags) - tags[::-1].index(d)) for d in range(len(lengths))
    )


@given(seed=st.integers(0, 2**63), step=st.integers(0, 10**9))
def test_a_batch_is_a_function_of_seed_and_step_and_stays_in_its_domain(
    seed: int, step: int
) -> None:
    batch = train_batch(SPLIT, seed=seed, step=step, batch_size=6, seq_len=32)
    again = train_batch(SPLIT, seed=seed, step=step, batch_size=6, seq_len=32)
    assert batch.tokens.dtype == batch.tags.dtype == np.int64
    assert batch.tokens.shape == batch.tags.shape == batch.documents.shape == (6, 33)
    assert (batch.tokens == again.tokens).all()
    assert np.unique(np.diff(batch.tokens, axis=1) % 251).tolist() == [1], "consecutive tokens"
    assert (SPLIT.document_tags[batch.documents] == batch.tags).all()
    assert (batch.tags == batch.tags[:, :1]).all()


def test_a_published_draw_never_changes() -> None:
    """Pinned: other values mean that every earlier record was trained on other data."""
    batch = train_batch(SPLIT, seed=3, step=7, batch_size=4, seq_len=8)
    assert batch.tags[:, 0].tolist() == [2, 0, 1, 2]
    assert batch.tokens[:, 0].tolist() == [55, 154, 41, 232]


def test_steps_and_seeds_draw_different_places() -> None:
    first = {
        tuple(train_batch(SPLIT, seed=0, step=step, batch_size=4, seq_len=8).tokens[:, 0])
        for step in range(50)
    }
    other = {
        tuple(train_batch(SPLIT, seed=1, step=step, batch_size=4, seq_len=8).tokens[:, 0])
        for step in range(50)
    }
    assert len(first) == len(other) == 50
    assert not first & other


def test_domains_have_equal_shares_and_positions_are_uniform() -> None:
    batches = [
        train_batch(SPLIT, seed=0, step=step, batch_size=4, seq_len=99) for step in range(3000)
    ]
    tags = np.concatenate([batch.tags[:, 0] for batch in batches])
    # Four sequences over three domains: 1, 1 and 2 by a random turn; SD of a share is sqrt(2/9 /
    # 3000) / 4.
    assert np.abs(np.bincount(tags) / len(tags) - 1 / 3).max() < 5 * math.sqrt(2 / 9 / 3000) / 4
    documents = (
        np.concatenate([batch.documents[:, 50][batch.tags[:, 0] == 1] for batch in batches]) - 40
    )
    # Middles of sequences lie in [50, 2950) of 10 documents of 300: the end ones have 250 places,
    # the others 300.
    expected = np.array([250, *[300] * 8, 250]) / 2900 * len(documents)
    chi_square = ((np.bincount(documents, minlength=10) - expected) ** 2 / expected).sum()
    assert chi_square < 33.7, "the 0.9999 quantile of 9 degrees of freedom"


def test_every_place_can_be_drawn_up_to_the_last() -> None:
    split = make_split([[12]])
    starts = {
        int(train_batch(split, seed=0, step=step, batch_size=1, seq_len=9).tokens[0, 0])
        for step in range(60)
    }
    assert starts == {0, 1, 2}


def test_a_sequence_longer_than_a_domain_is_refused() -> None:
    assert train_batch(SPLIT, seed=0, step=0, batch_size=1, seq_len=999).tokens.shape == (1, 1000)
    with pytest.raises(UserError, match=r"seq_len 1000 .* 1000 tokens"):
        train_batch(SPLIT, seed=0, step=0, batch_size=1, seq_len=1000)


@given(lengths, st.integers(1, 9), st.data())
def test_windows_do_not_overlap_nor_leave_their_domain(
    lengths: list[list[int]], seq_len: int, data: st.DataObject
) -> None:
    split = make_split(lengths)
    most = min(sum(domain) // (seq_len + 1) for domain in lengths)
    count = data.draw(st.integers(1, most))
    cut = windows(split, seq_len=seq_len, per_domain=count)
    assert np.bincount(cut.tags).tolist() == [count] * len(lengths)
    assert (split.document_tags[cut.documents] == cut.tags[:, None]).all()
    # Fewer than 251 tokens a case would make each token its own position; more wrap, so count
    # (document, token) pairs.
    pairs = list(zip(cut.documents.ravel().tolist(), cut.tokens.ravel().tolist(), strict=True))
    assert len(pairs) == len(set(pairs)), "no position twice"
    assert len(windows(split, seq_len=seq_len).tags) == most * len(lengths)


def test_windows_spread_over_documents() -> None:
    split = make_split([[1000, *[100] * 30, 1000], [200] * 25])
    cut = windows(split, seq_len=9, per_domain=32)
    middle = cut.documents[:, 5]
    assert len(set(middle[cut.tags == 0])) == 32, (
        "each of 32 documents once, though the two long ones hold 40 % of the text"
    )
    assert len(set(middle[cut.tags == 1])) == 25, "every document before a second window of any"


def test_more_windows_than_there_are_is_refused() -> None:
    with pytest.raises(UserError, match="allowed are 1 to 10"):
        windows(SPLIT, seq_len=99, per_domain=11)
    with pytest.raises(UserError, match="allowed are 1 to 0"):
        windows(SPLIT, seq_len=5000)
