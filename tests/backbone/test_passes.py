"""A pass shows a router its own tokens alone, and from attention the weight of each token on
itself, of the right layer, causal, and at no price of its own.
"""

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from bench.backbone.layers import rms_norm
from bench.backbone.passes import History, make_pass
from bench.conformance import run_checks
from bench.model.assemble import Model, assemble
from bench.routing.capacity import gate_plan, upgrade
from bench.routing.contract import OracleRequest, Router, RouterInput, RouterSpec, RoutingPlan
from bench.routing.paths import BLOCK_GATE, FFN_GATE
from bench.routing.registry import Entry
from bench.routing.scores import hash_noise
from bench.training.utility import Oracle
from tests.audit import audit
from tests.world import SEQ_LEN, blueprint, run_of, tokens, trained_like


class Attending(Router):
    """Blocks for the tokens that attend least to themselves.

    A little noise parts those that took part in no attention yet.
    """

    paths = BLOCK_GATE
    needs = frozenset({"attention"})

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.enable_knob()

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        assert inputs.attention is not None
        scores = 0.1 * hash_noise(self.spec, inputs) - inputs.attention
        chosen, count = upgrade(scores, inputs, self.spec, self.knob)
        return gate_plan(chosen, count, scores, (scores.new_ones(scores.shape), scores.sigmoid()))


class AttendingFfn(Attending):
    """The same for FFNs."""

    paths = FFN_GATE


class Received(Attending):
    """Blocks for the tokens that receive the most attention; it leaves padding in training."""

    needs = frozenset({"received"})

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        scores = hash_noise(self.spec, inputs)
        if inputs.received is not None:
            scores = inputs.received
            chosen = scores > scores.mean()
            return gate_plan(chosen, None, scores)
        return gate_plan(*upgrade(scores, inputs, self.spec, self.knob), scores)


class Streaming(AttendingFfn):
    """Scores the stream itself."""

    needs = frozenset({"stream", "attention"})


class Labelled(Attending):
    """Asks for oracle labels too."""

    needs = frozenset({"attention", "utility"})
    oracle = OracleRequest("on_policy", 0.25)


def built(router: type[Router], **changes: Any) -> Model:
    found = assemble(
        replace(blueprint("mlp_gate"), entry=Entry("attending", "gate", "", router), **changes), 0
    )
    trained_like(found.decoder)
    return found


def test_a_pass_reads_a_copy_and_counts_positions_from_0() -> None:
    text = tokens(2, 5)
    run = make_pass(text[:, :4], None, selection="topk")
    assert run.positions.tolist() == [[0, 1, 2, 3]] * 2 and run.selection == "topk"
    run.tokens.zero_()
    assert torch.equal(text, tokens(2, 5)), "a router that writes reaches no target"


def test_a_part_of_a_pass_keeps_what_belongs_to_its_tokens_and_shares_the_traces() -> None:
    ids = tokens(2, 5)
    attention = torch.stack((ids / 100, ids / 50), dim=-1)
    run = run_of(ids, tags=ids % 3, truth=ids % 2, attention=attention)
    index = torch.tensor([[0, 2, 4], [1, 3, 0]])  # the last one is padding
    part = run.take(index, torch.tensor([[True, True, True], [True, True, False]]))
    for row in range(2):
        for kept, place in enumerate(index[row].tolist()):
            token = int(ids[row, place])
            found = (part.tokens, part.positions, part.tags, part.truth)
            assert [int(each[row, kept]) for each in found] == [token, place, token % 3, token % 2]
    assert part.traces is run.traces
    assert torch.equal(part.attention[0], attention[0, index[0]])
    part.attention = torch.full((2, 3, 2), 0.5)
    run.adopt_attention(part, index)
    changed = [[True, False, True, False, True], [False, True, False, True, False]]
    wanted = torch.where(torch.tensor(changed).unsqueeze(-1), 0.5, attention)
    assert torch.equal(run.attention, wanted)


def test_an_ffn_router_sees_its_own_layers_attention_and_others_see_none() -> None:
    found, ids = built(AttendingFfn, routed_layers=(1, 3)), tokens()
    assert [layer.shows_attention for layer in found.decoder.layers] == [False, True, False, True]
    run = run_of(ids, "causal", history=History())
    found.decoder(run)
    assert run.history is not None
    for trace in run.traces:
        wanted = found.decoder.layers[trace.layer].attention.with_weights(
            rms_norm(run.history.entering[trace.layer]), run.positions
        )[1][..., 0]
        assert torch.equal(trace.inputs.attention, wanted)
        assert bool((wanted[:, 0] == 1).all())
    plain = assemble(blueprint("mlp_gate"), 0).decoder
    run = run_of(ids)
    plain(run)
    assert not any(layer.shows_attention for layer in plain.layers)
    assert run.attention is None and all(trace.inputs.attention is None for trace in run.traces)


def test_a_block_router_sees_the_layer_before_and_what_the_unchosen_last_had() -> None:
    found, ids = built(Attending), tokens()
    for router in found.decoder.routers:
        router.knob.fill_(
            0.3
        )  # sequences keep different numbers of tokens, so that some are padded
    assert [layer.shows_attention for layer in found.decoder.layers] == [True, True, True, False]
    runs = [run_of(ids, "causal", reference=reference) for reference in (False, True)]
    for run in runs:
        found.decoder(run)
    first, *later = runs[0].traces
    entering = rms_norm(found.decoder.embedding(ids))
    attention = found.decoder.layers[0].attention
    own = attention.with_weights(rms_norm(entering), runs[0].positions)[1][..., 0]
    torch.testing.assert_close(first.inputs.attention, own)
    for before, after in zip(runs[0].traces, later, strict=False):
        chosen = before.plan.mask[..., 1]
        assert 0 < int(chosen.sum()) < chosen.numel() and len(set(chosen.sum(1).tolist())) > 1
        assert torch.equal(after.inputs.attention[~chosen], before.inputs.attention[~chosen])
        assert not torch.isclose(
            after.inputs.attention[chosen], before.inputs.attention[chosen]
        ).all()
        alone = chosen & (
            chosen.cumsum(1) == 1
        )  # the first chosen token of a sequence has only itself to attend to
        assert bool((after.inputs.attention[alone] == 1).all())
    for one, other in zip(*(run.traces for run in runs), strict=True):
        torch.testing.assert_close(one.inputs.attention, other.inputs.attention)


def test_in_the_first_layer_there_is_nothing_to_see() -> None:
    run = run_of(tokens(), "causal")
    built(Attending, routed_layers=(0,)).decoder(run)
    assert torch.equal(run.traces[0].inputs.attention, torch.zeros(run.tokens.shape))


def test_the_attention_that_tokens_receive_is_shown_in_training_alone() -> None:
    found, ids = built(Received), tokens()
    assert [layer.shows_attention for layer in found.decoder.layers] == [True, True, True, False]
    run = run_of(ids, "causal")
    found.decoder(run)
    assert all(trace.inputs.received is None for trace in run.traces)
    runs = [run_of(ids, "topk", reference=reference) for reference in (False, True)]
    for run in runs:
        found.decoder(run)
    entering = rms_norm(found.decoder.embedding(ids))
    shown = found.decoder.layers[0].attention.with_weights(rms_norm(entering), runs[0].positions)[1]
    torch.testing.assert_close(runs[0].traces[0].inputs.received, shown[..., 1])
    for one, other in zip(*(run.traces for run in runs), strict=True):
        torch.testing.assert_close(one.inputs.received, other.inputs.received)
    for before, after in itertools.pairwise(runs[0].traces):
        chosen = before.plan.mask[..., 1]
        assert torch.equal(after.inputs.received[~chosen], before.inputs.received[~chosen])
        # Each chosen token gives one unit of attention, to chosen tokens alone.
        given = (after.inputs.received * chosen).sum(1)
        torch.testing.assert_close(given, chosen.sum(1).float())


@pytest.mark.parametrize("router", [Streaming, Attending])
def test_a_router_that_asks_sees_the_stream_before_the_norm(router: type[Router]) -> None:
    run = run_of(tokens(), "causal")
    built(router).decoder(run)
    for trace in run.traces:
        stream = trace.inputs.stream
        assert ("stream" in router.needs) == (stream is not None)
        if stream is not None:
            torch.testing.assert_close(rms_norm(stream), trace.inputs.hidden)
            assert not torch.allclose(stream, trace.inputs.hidden)


@pytest.mark.parametrize("router", [Attending, AttendingFfn])
def test_it_costs_no_product_beyond_those_of_attention(router: type[Router]) -> None:
    found = built(router)
    text = torch.randint(50, (5, SEQ_LEN + 1), generator=torch.Generator().manual_seed(0))
    for lines in audit(found, text, torch.zeros_like(text)).values():
        for line in lines:
            if line.component != "router":
                assert line.counted == pytest.approx(line.ledger, rel=1e-12), line


def test_a_fork_that_changes_nothing_finds_the_losses_again() -> None:
    found, ids, targets = built(Labelled), tokens(), tokens(seed=1)
    run = run_of(ids, history=History())
    loss = F.cross_entropy(
        found.decoder(run).flatten(0, 1), targets.flatten(), reduction="none"
    ).view(targets.shape)
    oracle = Oracle(found, 0, torch.float32)
    for site in range(len(found.decoder.routers)):
        utility, _ = oracle.fork(
            run, site, torch.zeros_like(ids, dtype=torch.bool), targets, loss.detach()
        )
        torch.testing.assert_close(utility, torch.zeros_like(utility), rtol=0, atol=1e-5)


@pytest.mark.parametrize("router", [Attending, pytest.param(AttendingFfn, marks=pytest.mark.slow)])
def test_routers_that_read_attention_conform(router: type[Router]) -> None:
    outcomes = run_checks(Entry("attending", "gate", "", router))
    assert not [
        f"{one.check}: expected {one.expected}; saw {one.seen}" for one in outcomes if not one.ok
    ]
