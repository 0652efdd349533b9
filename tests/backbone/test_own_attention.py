"""What a router is told of attention.

The weight of each token on itself, of the right layer, causal, and at no price of its own.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.backbone.layers import rms_norm
from bench.backbone.passes import History
from bench.conformance import run_checks
from bench.model.assemble import Model, assemble
from bench.routing.contract import (
    BLOCK_GATE,
    FFN_GATE,
    OracleRequest,
    Router,
    RouterInput,
    RouterSpec,
    RoutingPlan,
)
from bench.routing.registry import Entry
from bench.routing.select import gate_plan, hash_noise, upgrade
from bench.training.utility import Oracle
from tests.audit import audit
from tests.backbone.test_layers import HEADS, attention, noise, rotated, unit
from tests.small import SEQ_LEN, blueprint, run_of, tokens, trained_like


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


def test_own_weight_is_the_diagonal_of_the_softmax_and_attention_is_as_before() -> None:
    module, x, positions = (
        attention(),
        noise(2, 5, 16),
        torch.tensor([[0, 1, 2, 3, 4], [3, 4, 6, 7, 9]]),
    )
    out, own = module.with_own_weight(x, positions)
    torch.testing.assert_close(out, module(x, positions), rtol=1e-4, atol=1e-5)
    allowed = torch.eye(5, dtype=torch.bool).expand(2, 5, 5) | noise(2, 5, 5).gt(0).tril()
    torch.testing.assert_close(
        module.with_own_weight(x, positions, allowed)[0],
        module(x, positions, allowed),
        rtol=1e-4,
        atol=1e-5,
    )
    size = 16 // HEADS
    for b in range(2):
        query, key, _ = (x[b] @ matrix.T for matrix in module.qkv.detach())
        for t in range(5):
            mean = 0.0
            for part in (slice(head * size, (head + 1) * size) for head in range(HEADS)):
                turned = rotated(unit(query[t, part]), int(positions[b, t]))
                scores = torch.stack(
                    [
                        turned @ rotated(unit(key[s, part]), int(positions[b, s])) / size**0.5
                        for s in range(t + 1)
                    ]
                )
                mean += float(scores.softmax(0)[t]) / HEADS
            assert float(own[b, t]) == pytest.approx(mean, rel=1e-4)
    assert not own.requires_grad


def test_an_ffn_router_sees_its_own_layers_attention_and_others_see_none() -> None:
    found, ids = built(AttendingFfn, routed_layers=(1, 3)), tokens()
    assert [layer.shows_attention for layer in found.decoder.layers] == [False, True, False, True]
    run = run_of(ids, "causal", history=History())
    found.decoder(run)
    assert run.history is not None
    for trace in run.traces:
        wanted = found.decoder.layers[trace.layer].attention.with_own_weight(
            rms_norm(run.history.entering[trace.layer]), run.positions
        )[1]
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
    own = found.decoder.layers[0].attention.with_own_weight(rms_norm(entering), runs[0].positions)[
        1
    ]
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


@pytest.mark.parametrize("router", [Attending, AttendingFfn])
def test_routers_that_read_attention_conform(router: type[Router]) -> None:
    outcomes = run_checks(Entry("attending", "gate", "", router))
    assert not [
        f"{one.check}: expected {one.expected}; saw {one.seen}" for one in outcomes if not one.ok
    ]


def test_the_weight_on_itself_does_not_depend_on_what_comes_later() -> None:
    """The column mean of arXiv:2412.20875 does: the reason why it is not what routers are shown."""
    module, x = attention(), noise(1, 8, 16)
    changed = torch.cat((x[:, :5], noise(1, 3, 16, seed=1)), dim=1)
    positions = torch.arange(8).expand(1, 8)

    def column_mean(inputs: Tensor) -> Tensor:
        query, key, _ = module._heads(inputs, positions)
        scores = (query @ key.mT / (16 // HEADS) ** 0.5).masked_fill(
            ~torch.ones(8, 8, dtype=torch.bool).tril(), -torch.inf
        )
        return scores.softmax(-1).mean((1, 2))

    own = [module.with_own_weight(inputs, positions)[1] for inputs in (x, changed)]
    torch.testing.assert_close(own[0][:, :5], own[1][:, :5])
    assert not torch.isclose(column_mean(x)[:, :5], column_mean(changed)[:, :5], atol=1e-3).any()
