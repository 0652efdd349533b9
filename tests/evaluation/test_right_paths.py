"""Routing against the right paths: who sees them, and how agreement is measured."""

from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench.backbone.decoder import Decoder, DecoderConfig
from bench.backbone.passes import Pass
from bench.board.conditions import separate
from bench.config.read_suite import load_suite, parse_suite
from bench.config.row import RowConfig
from bench.data import DataConfig, load_corpus
from bench.data.optimum import best_loss, hard_share
from bench.data.planted import truth_of
from bench.errors import UserError
from bench.evaluation.right_paths import agreement, shares
from bench.routing.capacity import gate_plan
from bench.routing.contract import Router, RouterInput, RouterSpec, RoutingPlan
from bench.routing.load_routers import find
from bench.routing.paths import FFN_GATE, experts
from bench.routing.registry import RouterCard
from bench.runner.cells import Cell
from bench.runner.resolve import resolve
from bench.runner.rows import unmet_needs
from bench.runner.run_cell import run_cell
from tests import world


def card(row: RowConfig) -> RouterCard:
    return find(row.router).describe(row.options)


@given(st.integers(2, 4), st.integers(1, 5), st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_experts_are_matched_by_the_best_permutation(labels: int, paths: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    mask = torch.from_numpy(draw.random((3, 8, paths)) < 0.5)
    truth = draw.integers(-1, labels, (3, 8))
    met = shares(mask, truth, labels)
    known = [(w, t) for w in range(3) for t in range(8) if truth[w, t] >= 0]
    for path in range(paths):
        for label in range(labels):
            parts = [
                float(mask[w, t, path]) / int(mask[w, t].sum())
                for w, t in known
                if mask[w, t].any() and truth[w, t] == label
            ]
            assert met[path, label] == pytest.approx(sum(parts) / max(1, len(known)))
    wide = np.zeros((max(paths, labels),) * 2)
    wide[:paths, :labels] = met
    best = max(
        sum(wide[path, label] for path, label in enumerate(order))
        for order in permutations(range(len(wide)))
    )
    assert agreement(met, experts(paths)) == pytest.approx(best)


def test_a_gate_agrees_where_it_upgrades_the_hard_tokens() -> None:
    truth = np.array([[0, 1, 1, 0]])
    for chosen, right in (
        ([0, 1, 1, 0], 1.0),
        ([1, 0, 0, 1], 0.0),
        ([1, 1, 1, 1], 0.5),
        ([0, 0, 1, 0], 0.75),
    ):
        mask = torch.tensor([[[not c, bool(c)] for c in chosen]])
        assert agreement(shares(mask, truth, 2), FFN_GATE) == right


class _Spy(Router):
    paths = FFN_GATE

    def __init__(self, needs: frozenset[str]) -> None:
        super().__init__()
        self.needs = needs
        self.seen: list[Tensor | None] = []

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        self.seen.append(inputs.truth)
        if inputs.previous is not None:
            self.seen.append(inputs.previous.inputs.truth)
        return gate_plan(inputs.tokens % 2 == 0, None)


@pytest.mark.parametrize(
    "needs", [frozenset[str](), frozenset({"tags", "token_loss"}), frozenset({"truth"})]
)
def test_only_routers_that_declare_the_need_see_the_right_paths(needs: frozenset[str]) -> None:
    task = DataConfig.model_validate({"source": "planted"}).planted
    assert task is not None
    config = DecoderConfig(task.vocab_size, 16, 2, 2, 32, 2, task.document_tokens)
    spies = [_Spy(needs) for _ in range(2)]
    for layer, spy in enumerate(spies):
        spy.build(
            RouterSpec(
                16, FFN_GATE, 0.5, 1.0, layer, 2, task.vocab_size, task.document_tokens, 1, 0
            )
        )
    decoder = Decoder(config, {layer: [spy] for layer, spy in enumerate(spies)})
    decoder.reset(0)
    decoder.truth = truth_of(task)
    tokens = torch.randint(task.vocab_size, (2, 20), generator=torch.Generator().manual_seed(0))
    run = Pass(tokens, torch.arange(20).expand(2, 20), torch.zeros_like(tokens))
    decoder(run)
    for seen in (seen for spy in spies for seen in spy.seen):
        if "truth" in needs:
            assert seen is not None
            assert np.array_equal(seen.numpy(), truth_of(task)(tokens.numpy()))
        else:
            assert seen is None
    assert (run.truth is not None) == ("truth" in needs)


def _suite(route: str, rows: list[Any]) -> dict[str, Any]:
    planted = {
        "route": route,
        "domains": 2,
        "symbols": 6,
        "segments": 2,
        "segment_tokens": 8,
        "easy": 0.5,
    }
    data = {
        "source": "planted",
        "planted": planted,
        "max_tokens": 4096,
        "validation_bytes": 600,
        "calibration_bytes": 600,
    }
    evaluation = {
        "calibration_windows": 32,
        "validation_windows": 32,
        "probe_windows": 8,
        "sweep": [1.0],
        "tolerance": 0.2,
    }
    return world.suite_data(
        Path(), routed_layers=[0, 1, 2, 3], seq_len=16, data=data, evaluation=evaluation, rows=rows
    )


@pytest.mark.parametrize(("route", "over"), [("depth", "ffn"), ("experts", "experts")])
def test_a_record_tells_how_far_routing_agrees_with_the_truth(route: str, over: str) -> None:
    options = {"over": over} | ({"num_experts": 2} if over == "experts" else {})
    random = {
        "name": "random",
        "role": "control",
        "options": options | ({"active_experts": 1} if over == "experts" else {}),
    }
    suite = parse_suite(
        _suite(route, [{"name": "planted_oracle", "role": "informed", "options": options}, random]),
        "t",
    )
    oracle, chance = (run_cell(resolve(Cell(suite, row, 0)), "test", Path()) for row in suite.rows)
    for record in (oracle, chance):
        assert record.status == "ok", record.reason
        assert record.truth is not None
        assert record.truth.best_loss == best_loss(
            suite.data.planted, 0.5 if route == "depth" else 1.0
        )  # type: ignore[arg-type]
    assert oracle.truth and chance.truth
    # every hard token takes its path; over (cheap, full) the budget leaves room for some easy ones,
    # which are on the wrong one then
    assert suite.data.planted is not None
    room = 0.5 - hard_share(suite.data.planted) if route == "depth" else 0.0
    assert all(
        found == pytest.approx(1.0 - room, abs=0.04 if room else 1e-9)
        for found in oracle.truth.accuracy
        if found is not None
    )
    for found, expected in zip(chance.truth.accuracy, chance.truth.chance, strict=True):
        assert expected == pytest.approx(0.5, abs=0.06)
        assert found == pytest.approx(
            expected, abs=0.2
        )  # a hash of position and token, of which so short a text has few


def test_each_seed_has_a_task_of_its_own_and_they_stand_on_one_board() -> None:
    options = {"name": "random", "role": "control", "options": {"over": "ffn"}}
    suite = parse_suite(_suite("depth", [options]), "t")
    records = [
        run_cell(resolve(Cell(suite, suite.rows[0], seed)), "test", Path()) for seed in range(2)
    ]
    assert records[0].provenance.data_hash != records[1].provenance.data_hash
    together, apart = separate(records)
    assert (len(together), apart) == (2, [])
    fixed = parse_suite(
        _suite("depth", [options]) | {"data": suite.data.at(5).model_dump(mode="json")}, "t"
    )
    same = [
        run_cell(resolve(Cell(fixed, fixed.rows[0], seed)), "test", Path()) for seed in range(2)
    ]
    assert same[0].provenance.data_hash == same[1].provenance.data_hash
    odd = records[1].model_copy(
        update={"provenance": records[1].provenance.model_copy(update={"data_hash": "x"})}
    )
    assert next(
        why for _, why in separate([records[0], records[1], records[1], odd])[1]
    ).startswith("data of seed 1")


def test_needs_and_lengths_are_told_in_one_line() -> None:
    suite = parse_suite(_suite("depth", ["planted_oracle"]), "t")
    assert unmet_needs(card(suite.row("planted_oracle")), 2, "depth") == ""
    assert "of the kind 'experts'" in unmet_needs(card(suite.row("planted_oracle")), 2, "experts")
    assert "right path" in unmet_needs(card(suite.row("planted_oracle")), 2)
    with pytest.raises(UserError, match=r"seq_len is 20; .* must be 16"):
        parse_suite(_suite("depth", ["planted_oracle"]) | {"seq_len": 20}, "t")
    wrong = _suite("depth", ["planted_oracle"])
    wrong["data"]["planted"]["symbol"] = 3
    with pytest.raises(
        UserError, match=r"Unknown field 'data.planted.symbol'. Did you mean 'data.planted.symbols'"
    ):
        parse_suite(wrong, "t")


@pytest.mark.parametrize("name", ["planted-depth", "planted-experts"])
def test_every_hard_token_of_the_suites_can_be_paid_for(name: str) -> None:
    suite = load_suite(name)
    assert suite.data.planted is not None
    assert best_loss(suite.data.planted, suite.budget) == best_loss(suite.data.planted)
    assert load_corpus(suite.data.at(0)).vocab_size == suite.data.planted.vocab_size
