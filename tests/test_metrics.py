"""Routing metrics against loops and known values."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bench.metrics import changed, mutual_information, path_sets
from bench.rng import generator

LABELS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=40)


@given(LABELS)
def test_mutual_information_is_the_sum_over_pairs(pairs: list[tuple[int, int]]) -> None:
    joint, first, second = Counter(pairs), Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    n = len(pairs)
    wanted = sum(c / n * math.log(c * n / (first[a] * second[b])) for (a, b), c in joint.items())
    a, b = torch.tensor(pairs).T
    assert mutual_information(a, b) == pytest.approx(wanted, abs=1e-9)
    assert mutual_information(b, a) == pytest.approx(wanted, abs=1e-9)


def test_mutual_information_with_itself_is_the_entropy() -> None:
    labels = torch.randint(5, (200,), generator=generator(0, "labels"))
    entropy = stats.entropy(np.bincount(labels.numpy()))
    assert mutual_information(labels, labels) == pytest.approx(entropy)
    assert mutual_information(labels, torch.zeros_like(labels)) == 0


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=12))
def test_path_sets_name_each_tokens_paths(rows: list[list[bool]]) -> None:
    index, sets = path_sets(torch.tensor([rows]))
    assert [sets[number] for number in index[0].tolist()] == [tuple(p for p in range(3) if row[p]) for row in rows]
    assert len(set(sets)) == len(sets)


def test_churn_is_the_share_of_tokens_with_another_set() -> None:
    before = torch.tensor([[[True, False], [True, False], [True, True], [False, True]]])
    after = torch.tensor([[[True, False], [False, True], [True, False], [False, True]]])
    assert changed(after, before) == 0.5
    assert changed(before, before) == 0
