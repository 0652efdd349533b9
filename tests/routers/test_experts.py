"""Routers of experts against loops over tokens and experts, with none of the bench's dispatch.

Outputs, and gradients of stream, experts and router, to 1e-5 in float32.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from bench.routing.contract import Selection
from tests.routers import naive
from tests.world import tokens

EXPERTS = 8
Chosen = list[list[int]]
"""The experts of each token of a sequence."""
Rule = Callable[[Any, Tensor, Selection], tuple[Tensor, Chosen]]
"""(router, hidden states of a sequence, selection) -> weights `[token, expert]`, chosen experts."""


def ranked(values: list[float]) -> list[int]:
    """Return the places of values from the highest to the lowest."""
    return sorted(range(len(values)), key=lambda place: -values[place])


def logits_of(router: Any, hidden: Tensor) -> Tensor:
    """Return the logits of a linear router."""
    return hidden @ router.logits.weight.T


def limit(router: Any, name: str, selection: Selection) -> Any:
    """Return a buffer in training, and the knob in evaluation, as numbers."""
    return (router.get_buffer(name) if selection == "topk" else router.knob).tolist()


def as_shares(weight: Tensor, chosen: Chosen) -> Tensor:
    """Divide the weights of a token with several experts by their sum."""
    rows: list[Tensor] = []
    for row, experts in zip(weight, chosen, strict=True):
        rows.append(row / row[experts].sum() if len(experts) > 1 else row)
    return torch.stack(rows)


def adaptive(router: Any, hidden: Tensor, selection: Selection) -> tuple[Tensor, Chosen]:
    """The first two, if the first leads by at most T, else the first."""
    p = logits_of(router, hidden).softmax(-1)
    most = limit(router, "threshold", selection)
    chosen: Chosen = []
    for row in p.tolist():
        first, second = ranked(row)[:2]
        chosen.append([first, second] if row[first] - row[second] <= most else [first])
    return p, chosen


def null(router: Any, hidden: Tensor, selection: Selection) -> tuple[Tensor, Chosen]:
    """The experts among the best 4 of 8 experts and 8 copies of a null expert."""
    logits = logits_of(router, hidden)
    p = torch.cat((logits[:, :EXPERTS], logits[:, EXPERTS:].expand(-1, 8)), dim=1).softmax(-1)
    ahead = limit(router, "threshold", selection)
    chosen: Chosen = []
    for row in p.tolist():
        slots = [value + ahead for value in row[:EXPERTS]] + row[EXPERTS:]
        chosen.append([slot for slot in ranked(slots)[:4] if slot < EXPERTS])
    return as_shares(p, chosen), chosen


def expert_choice(router: Any, hidden: Tensor, selection: Selection) -> tuple[Tensor, Chosen]:
    """Each expert takes its best quarter of the tokens, or those above its threshold."""
    p = logits_of(router, hidden).softmax(-1)
    columns = p.T.tolist()
    if selection == "topk":
        takes = [set(ranked(column)[: len(p) // 4]) for column in columns]
    else:
        limits = [-value for value in router.knob.tolist()]
        takes = [
            {token for token, value in enumerate(column) if value > least}
            for column, least in zip(columns, limits, strict=True)
        ]
    return p, [[e for e in range(EXPERTS) if token in takes[e]] for token in range(len(p))]


def expert_threshold(router: Any, hidden: Tensor, selection: Selection) -> tuple[Tensor, Chosen]:
    """Each expert takes the tokens whose affinity lies above its threshold."""
    affinity = logits_of(router, hidden).sigmoid()
    limits = limit(router, "quantile", selection)
    if selection == "causal":
        limits = [-value for value in limits]
    return affinity, [
        [e for e in range(EXPERTS) if row[e] > limits[e]] for row in affinity.tolist()
    ]


def remoe(router: Any, hidden: Tensor, selection: Selection) -> tuple[Tensor, Chosen]:
    """The experts whose shifted logit is positive, weighed by it."""
    shifted = logits_of(router, hidden) + limit(router, "shift", selection)
    return shifted, [[e for e in range(EXPERTS) if row[e] > 0] for row in shifted.tolist()]


def top_p(router: Any, hidden: Tensor, selection: Selection) -> tuple[Tensor, Chosen]:
    """The most probable experts until their probabilities reach p."""
    p = logits_of(router, hidden).softmax(-1)
    least = limit(router, "threshold", selection)
    chosen: Chosen = []
    for row in p.tolist():
        taken, total = list[int](), 0.0
        for expert in ranked(row):
            taken.append(expert)
            total += row[expert]
            if total >= least:
                break
        chosen.append(taken)
    return p, chosen


def self_routing(router: Any, hidden: Tensor, _: Selection) -> tuple[Tensor, Chosen]:
    """The best two by the first dimensions of the hidden state."""
    p = hidden[:, :EXPERTS].softmax(-1)
    chosen = [ranked(row)[:2] for row in p.tolist()]
    return as_shares(p, chosen), chosen


def frozen(router: Any, hidden: Tensor, _: Selection) -> tuple[Tensor, Chosen]:
    """The best two by a linear score."""
    p = logits_of(router, hidden).softmax(-1)
    chosen = [ranked(row)[:2] for row in p.tolist()]
    return as_shares(p, chosen), chosen


def quantile(router: Any, hidden: Tensor, _: Selection) -> tuple[Tensor, Chosen]:
    """The best two by sigmoid plus bias, weighed by their shares of the sigmoids."""
    affinity, bias = logits_of(router, hidden).sigmoid(), router.balancer.bias.tolist()
    rows = [[s + b for s, b in zip(row, bias, strict=True)] for row in affinity.tolist()]
    chosen = [ranked(row)[:2] for row in rows]
    return as_shares(affinity, chosen), chosen


def hashing() -> Rule:
    """The expert of the token id in the table, with weight 1; sequences are read in order."""
    sequences: Iterator[Tensor] = iter(tokens())

    def rule(router: Any, hidden: Tensor, _: Selection) -> tuple[Tensor, Chosen]:
        chosen = [[int(router.expert[token])] for token in next(sequences)]
        return torch.ones(len(hidden), EXPERTS), chosen

    return rule


class Case(NamedTuple):
    """A router by its rule.

    Attributes:
        rule: makes the rule, which may read the sequences in order.
        varied: whether tokens differ in their number of experts.
        state: buffer -> its value, or the first and last of its values.
    """

    rule: Callable[[], Rule]
    varied: bool
    state: Mapping[str, float | tuple[float, float]] = {}


CASES = {
    "adaptive_moe": Case(lambda: adaptive, True, {"threshold": 0.05, "knob": 0.02}),
    "null_experts": Case(lambda: null, True, {"threshold": -0.02, "knob": 0.02}),
    "expert_choice": Case(lambda: expert_choice, True, {"knob": (-0.1, -0.2)}),
    "expert_threshold": Case(
        lambda: expert_threshold, True, {"quantile": (0.5, 0.7), "knob": (-0.7, -0.5)}
    ),
    "remoe": Case(lambda: remoe, True, {"shift": -0.3, "knob": -0.6}),
    "top_p": Case(lambda: top_p, True, {"threshold": 0.4, "knob": 0.6}),
    "self_routing": Case(lambda: self_routing, False),
    "frozen_router": Case(lambda: frozen, False),
    "hash": Case(hashing, False),
    "quantile_balancing": Case(lambda: quantile, False, {"balancer.bias": (-0.2, 0.2)}),
}


@pytest.mark.parametrize("selection", ["topk", "causal"])
@pytest.mark.parametrize("name", CASES)
def test_experts_are_loops_over_tokens(name: str, selection: Selection) -> None:
    case = CASES[name]
    found, rule, numbers = naive.built(name), case.rule(), set[int]()
    for buffer, value in case.state.items():
        place = found.decoder.routers[0].get_buffer(buffer)
        first, last = value if isinstance(value, tuple) else (value, value)
        place.copy_(torch.linspace(first, last, place.numel()).view_as(place))

    def layer_of(layer: Any, x: Tensor, positions: Tensor) -> Tensor:
        h = x + naive.attended(layer, x, positions)
        hidden = naive.unit(h)
        weight, chosen = rule(layer.ffn_router, hidden, selection)
        rows: list[Tensor] = []
        for token, experts in enumerate(chosen):
            row = h[token]
            for expert in experts:
                output = naive.swiglu(layer.ffn.bank, hidden[token], expert)
                row = row + weight[token, expert] * output
            rows.append(row)
        numbers.update(map(len, chosen))
        return torch.stack(rows)

    naive.agree(found, [1], layer_of, selection)
    assert (len(numbers) > 1) == case.varied
