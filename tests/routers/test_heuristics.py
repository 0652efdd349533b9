"""The rules of routing that learn nothing, each against a reference in plain Python."""

import math
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.conformance import run_checks
from bench.data import Split
from bench.data import windows as cut_windows
from bench.data.sampling import MAX_BIGRAM_VOCAB
from bench.errors import UserError
from bench.evaluation.calibrate import calibrate
from bench.evaluation.evaluate import evaluate
from bench.rng import generator
from bench.routing.contract import Router, RouterInput, RouterSpec, Selection, TrainStatistics
from bench.routing.load_routers import find
from routers.heuristics import LARGEST_BIGRAM_VOCABULARY
from tests.world import model, row_id

VOCAB, SEQ = 40, 64
OTHERS = ("context_hash", "stride", "surprisal", "tag")
HEURISTICS = ("frequency", *OTHERS)


def built(
    name: str,
    options: dict[str, Any] | None = None,
    capacity: float = 0.4,
    seed: int = 0,
    num_domains: int = 6,
) -> Router:
    router = find(name).make(options or {})
    router.build(RouterSpec(8, router.paths, capacity, 1.0, 1, 4, VOCAB, SEQ, num_domains, seed))
    return router


def inputs(
    tokens: Tensor, selection: Selection = "causal", tags: Tensor | None = None
) -> RouterInput:
    positions = torch.arange(tokens.shape[1]).expand(tokens.shape)
    return RouterInput(
        torch.zeros(*tokens.shape, 8),
        tokens,
        positions,
        tags,
        None,
        generator(0, "routing"),
        0.5,
        selection,
    )


def text(length: int = 20_000) -> Tensor:
    """A Markov chain over ids of very unequal frequency."""
    draw = np.random.default_rng(0)
    weights = draw.dirichlet(np.full(VOCAB - 5, 0.2), size=VOCAB - 5)
    ids = [0]
    for _ in range(length - 1):
        ids.append(int(draw.choice(VOCAB - 5, p=weights[ids[-1]])))
    return torch.tensor(ids)


TEXT = text()
COUNTS = Counter(TEXT.tolist())
PAIRS = Counter(pairwise(TEXT.tolist()))
STATISTICS = TrainStatistics(
    torch.tensor([COUNTS[t] for t in range(VOCAB)]),
    torch.tensor([[PAIRS[a, b] for b in range(VOCAB)] for a in range(VOCAB)]),
)
ROWS = TEXT[: len(TEXT) // SEQ * SEQ].view(-1, SEQ)


def fitted(name: str, options: dict[str, Any] | None = None, capacity: float = 0.4) -> Router:
    router = built(name, options, capacity)
    router.fit(STATISTICS)
    return router


def upgraded(router: Router, seen: RouterInput, knob: float) -> Tensor:
    assert router.knob is not None
    router.knob.fill_(knob)
    return router(seen).mask[..., 1]


def surprisal(before: int | None, token: int) -> float:
    alone = (COUNTS[token] + 1) / (len(TEXT) + VOCAB)
    if before is None:
        return -math.log(alone)
    followed = sum(PAIRS[before, other] for other in range(VOCAB))
    return -math.log((PAIRS[before, token] + alone) / (followed + 1))


@pytest.mark.parametrize(
    "name", ["frequency", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]
)
def test_each_rule_over_experts_conforms(name: str) -> None:
    outcomes = run_checks(find(name), options={"over": "experts"})
    assert not [outcome for outcome in outcomes if not outcome.ok]


def test_hashes_of_contexts_meet_the_budget_on_text_of_which_one_byte_is_a_sixth() -> None:
    draw = np.random.default_rng(3)
    words = [draw.integers(1, 9, draw.integers(2, 8)).tolist() for _ in range(6000)]
    ids = np.array([letter for word in words for letter in (*word, 0)], np.uint8)
    assert np.bincount(ids).max() / len(ids) > 1 / 6
    prose = Split(ids, np.array([0, len(ids)]), np.array([0], np.uint8), ("prose",))
    windows = cut_windows(prose, seq_len=24, per_domain=200)
    missed: dict[int, list[float]] = {1: [], 3: []}
    for context, misses in missed.items():
        for seed in range(2):
            made = model("context_hash", {"context": context}, seed)
            calibrate(made, windows, 1.0)
            masks = evaluate(made, windows, batch_size=200, keep=True).masks.values()
            misses += [
                abs(float(mask[..., 1].float().mean()) / made.solution.capacity - 1)
                for mask in masks
            ]
    assert max(missed[3]) < 0.01
    assert max(missed[1]) > 0.05


def test_a_context_is_hashed_the_same_wherever_it_stands() -> None:
    ids = torch.tensor([[7, 1, 2, 3, 9, 1, 2, 3, 3], [1, 2, 3, 1, 1, 2, 3, 2, 3]])
    demand = built("context_hash").demand(inputs(ids))
    contexts = [
        tuple([-1, -1, *row][place : place + 3]) for row in ids.tolist() for place in range(9)
    ]
    by_context = dict(zip(contexts, demand.flatten().tolist(), strict=True))
    assert [by_context[context] for context in contexts] == demand.flatten().tolist()
    assert len(set(by_context.values())) == len(by_context) == 15
    assert not torch.equal(built("context_hash", seed=1).demand(inputs(ids)), demand)


def test_contexts_of_one_token_over_experts_are_the_hash_layers() -> None:
    ids = torch.arange(VOCAB).view(2, -1)
    ours = built("context_hash", {"over": "experts", "context": 1})
    assert torch.equal(ours(inputs(ids)).mask, built("hash")(inputs(ids)).mask)


def test_frequency_lies_where_the_tokens_that_are_more_frequent_end() -> None:
    router = fitted("frequency")
    demand = router.demand(inputs(ROWS)).flatten().tolist()
    for token, place in zip(ROWS.flatten().tolist(), demand, strict=True):
        more = sum(count for count in COUNTS.values() if count > COUNTS[token]) / len(TEXT)
        same = sum(count for count in COUNTS.values() if count == COUNTS[token]) / len(TEXT)
        assert more - 1e-6 <= place <= more + same + 1e-6


@pytest.mark.parametrize("name", ["frequency", "surprisal"])
@pytest.mark.parametrize("capacity", [0.1, 0.5, 0.73])
def test_the_place_in_the_training_text_upgrades_its_share_of_it_without_calibration(
    name: str, capacity: float
) -> None:
    chosen = upgraded(fitted(name, capacity=capacity), inputs(ROWS), capacity - 1)
    assert float(chosen.float().mean()) == pytest.approx(capacity, abs=0.01)


def test_unseen_tokens_are_the_rarest() -> None:
    ids = torch.full((1, SEQ), VOCAB - 1)
    assert COUNTS[VOCAB - 1] == 0
    assert upgraded(fitted("frequency"), inputs(ids), -0.99).all()


def test_frequency_keeps_a_token_id_on_one_expert_and_experts_about_as_busy() -> None:
    mask = fitted("frequency", {"over": "experts", "num_experts": 3})(inputs(ROWS)).mask
    homes = {
        (token, expert)
        for token, expert in zip(
            ROWS.flatten().tolist(), mask.int().argmax(-1).flatten().tolist(), strict=True
        )
    }
    assert len(homes) == len(COUNTS)
    largest = max(COUNTS.values()) / len(TEXT)
    assert (mask.float().mean((0, 1)) - 1 / 3).abs().max() <= largest


@pytest.mark.parametrize("order", ["bigram", "unigram"])
def test_surprisal_orders_as_counts_in_plain_python_do(order: str) -> None:
    router = fitted("surprisal", {"order": order})
    found: list[tuple[float, float]] = []
    for ids, places in zip(
        ROWS.tolist()[:40], router.demand(inputs(ROWS[:40])).tolist(), strict=True
    ):
        before = [None, *ids[:-1]] if order == "bigram" else [None] * SEQ
        found += [
            (surprisal(*pair), place)
            for pair, place in zip(zip(before, ids, strict=True), places, strict=True)
        ]
    found.sort()
    for (less, place), (more, further) in pairwise(found):
        assert place <= further + 1e-6 or more - less < 1e-9


def test_surprisal_of_single_tokens_is_the_order_of_frequency() -> None:
    ours, theirs = fitted("surprisal", {"order": "unigram"}), fitted("frequency")
    torch.testing.assert_close(
        ours.demand(inputs(ROWS)), theirs.demand(inputs(ROWS)), atol=0.002, rtol=0
    )  # less one count a token


def test_training_takes_the_rarest_of_each_sequence() -> None:
    chosen = fitted("frequency")(inputs(ROWS, "topk")).mask[..., 1]
    assert (chosen.sum(1) == round(0.4 * SEQ)).all()
    for ids, taken in zip(ROWS.tolist(), chosen.tolist(), strict=True):
        rarest_left = min(COUNTS[token] for token, full in zip(ids, taken, strict=True) if not full)
        assert all(
            COUNTS[token] <= rarest_left for token, full in zip(ids, taken, strict=True) if full
        )


def test_pairs_are_counted_up_to_the_vocabulary_that_the_data_count_them_for() -> None:
    assert LARGEST_BIGRAM_VOCABULARY == MAX_BIGRAM_VOCAB


@pytest.mark.parametrize(
    ("capacity", "gaps"), [(0.5, {2}), (0.25, {4}), (0.3, {3, 4}), (0.6, {1, 2})]
)
def test_a_stride_may_be_a_fraction(capacity: float, gaps: set[int]) -> None:
    for chosen in (
        built("stride", capacity=capacity)(inputs(ROWS[:3], "topk")).mask[..., 1],
        upgraded(built("stride", capacity=capacity), inputs(ROWS[:3]), -1.0),
    ):
        places = [row.nonzero().flatten().tolist() for row in chosen]
        assert places[0] == places[1] == places[2]
        assert len(places[0]) == pytest.approx(capacity * SEQ, abs=0.5)
        assert {after - before for before, after in pairwise(places[0])} == gaps


def test_experts_take_turns() -> None:
    mask = built("stride", {"over": "experts", "num_experts": 5})(inputs(ROWS[:2])).mask
    assert mask.int().argmax(-1)[1].tolist() == [position % 5 for position in range(SEQ)]


def test_a_domain_has_its_expert() -> None:
    tags = torch.arange(6).view(6, 1).expand(6, SEQ)
    mask = built("tag", {"over": "experts", "num_experts": 4})(inputs(ROWS[:6], tags=tags)).mask
    assert [row.int().argmax(-1).unique().tolist() for row in mask] == [
        [0],
        [1],
        [2],
        [3],
        [0],
        [1],
    ]


@pytest.mark.parametrize("selection", ["topk", "causal"])
def test_a_gate_is_open_to_some_domains_and_at_most_one_is_divided(selection: Selection) -> None:
    tags = torch.arange(6).view(6, 1).expand(6, SEQ)
    router = built("tag", capacity=0.4)
    seen = inputs(ROWS[:6], selection, tags)
    chosen = upgraded(router, seen, 0.4 - 1)
    shares = chosen.float().mean(1)
    assert ((shares > 0) & (shares < 1)).sum() == 1  # 0.4 of 6 is 2.4
    assert float(shares.mean()) == pytest.approx(0.4, abs=0.002 if selection == "topk" else 0.03)
    opened = {
        tuple((upgraded(built("tag", seed=seed), seen, -0.6).float().mean(1) == 1).tolist())
        for seed in range(20)
    }
    assert len(opened) > 5


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("stride", {"over": "block"}, "'ffn', 'experts'"),
        ("frequency", {"num_experts": 1}, "at least 2"),
        ("context_hash", {"context": 0}, "1 or more"),
        ("surprisal", {"order": "trigram"}, "'unigram', 'bigram'"),
    ],
    ids=row_id,
)
def test_an_option_out_of_range_is_the_users_error(
    name: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        find(name).make(options)


def test_a_table_of_pairs_that_is_too_large_is_refused_before_it_is_made() -> None:
    router = find("surprisal").make({})
    with pytest.raises(ValueError, match=r"at most 1024, and this one has 50257: use 'unigram'"):
        router.build(RouterSpec(8, router.paths, 0.5, 1.0, 1, 4, 50257, SEQ, 1, 0))
