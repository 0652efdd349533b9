"""Figures of masks and scores against loops and known values."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bench.evaluation.plan_metrics import (
    changed,
    co_activation,
    collapse,
    mutual_information,
    path_sets,
    saturation,
    several,
)
from bench.rng import generator
from bench.routing.paths import FFN_GATE, Paths, Site

LABELS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=40)


@given(LABELS)
def test_mutual_information_is_the_sum_over_pairs(pairs: list[tuple[int, int]]) -> None:
    joint, first, second = (
        Counter(pairs),
        Counter(a for a, _ in pairs),
        Counter(b for _, b in pairs),
    )
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
    assert [sets[number] for number in index[0].tolist()] == [
        tuple(p for p in range(3) if row[p]) for row in rows
    ]
    assert len(set(sets)) == len(sets)


def test_churn_is_the_share_of_tokens_with_another_set() -> None:
    before = torch.tensor([[[True, False], [True, False], [True, True], [False, True]]])
    after = torch.tensor([[[True, False], [False, True], [True, False], [False, True]]])
    assert changed(after, before) == 0.5
    assert changed(before, before) == 0


@given(
    st.lists(
        st.lists(st.lists(st.booleans(), min_size=2, max_size=2), min_size=3, max_size=3),
        min_size=1,
        max_size=4,
    )
)
def test_saturation_is_the_share_of_last_choices_made_before(
    probes: list[list[list[bool]]],
) -> None:
    pairs = [
        {(token, path) for token, row in enumerate(mask) for path in range(2) if row[path]}
        for mask in probes
    ]
    wanted = [len(made & pairs[-1]) / max(1, len(pairs[-1])) for made in pairs[:-1]]
    assert saturation([torch.tensor([mask]) for mask in probes]) == pytest.approx(wanted)


def test_several_is_the_share_of_tokens_on_more_than_one_expert() -> None:
    """Four tokens: the shared expert and `skip` are no second expert."""
    paths = Paths(Site.FFN, ("expert_all", "expert0", "expert1", "skip"), always=("expert_all",))
    one, two, none = [1, 1, 0, 1], [1, 1, 1, 0], [1, 0, 0, 1]
    early, late = torch.tensor([[two, two, one, two]]), torch.tensor([[one, two, one, none]])
    assert several([early.bool(), late.bool()], paths) == (0.75, 0.25)
    for always in (one, two):
        assert several([torch.tensor([[always] * 4]).bool()] * 2, paths) == ()
    gate = torch.tensor([[[1, 0], [0, 1]]]).bool()
    assert several([gate, gate], FFN_GATE) == ()


def test_co_activation_is_the_share_with_the_most_frequent_partner() -> None:
    """Six tokens of two windows; every token takes `expert_all`, which is no partner.

    expert0 has 3 tokens, 2 of them with expert1; expert1 has 3, 2 with expert0; expert2 has 2,
    one with expert0. So 2 + 2 + 1 of 3 + 3 + 2.
    """
    names = ("expert_all", "expert0", "expert1", "expert2", "skip")
    paths = Paths(Site.FFN, names, always=("expert_all",))
    first = [[1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [1, 1, 0, 1, 0]]
    second = [[1, 0, 0, 1, 1], [1, 0, 1, 0, 1], [1, 0, 0, 0, 1]]
    assert co_activation(torch.tensor([first, second]).bool(), paths) == 5 / 8
    # One expert per token, beside the shared one and `skip`, has no partner.
    assert co_activation(torch.tensor([second]).bool(), paths) is None
    gate = torch.tensor([[[1, 0], [0, 1]]]).bool()
    assert co_activation(gate, FFN_GATE) is None


def test_collapse_tells_one_direction_from_many() -> None:
    noise = torch.Generator().manual_seed(0)
    one = torch.randn(2, 50, 1, 1, generator=noise).abs() * torch.tensor([1.0, -2.0, 0.5, 1.0])
    assert collapse(one) == pytest.approx((0, 1), abs=1e-6)
    many = torch.randn(40, 200, 2, 4, generator=noise)
    assert collapse(many) == pytest.approx((1, 4), abs=0.02)
    two = (
        torch.eye(4)[:2].repeat(50, 1).view(1, 100, 1, 4)
    )  # half here, half there: variance 1/2, and one direction between them
    assert collapse(two) == pytest.approx((0.5, 1), abs=1e-6)
