"""Routers of each kind that the literature has, run in the decoder: forward, backward, and charged
for the plan.

Those that are not shipped show that the contract needs no change for their families.
"""

import pytest
import torch
from torch import nn

from bench.backbone.decoder import Decoder
from bench.flops.ledger import Ledger
from bench.routing.contract import RouterSpec, Selection, TrainStatistics
from bench.routing.paths import Site
from tests.routing.families import FAMILIES, Supervised
from tests.world import CONFIG, SEQ_LEN, run_of, tokens, trained_like


def decoder_of(family: str) -> Decoder:
    placed = {layer: FAMILIES[family]() for layer in (1, 2)}
    for layer, routers in placed.items():
        for router in routers:
            spec = RouterSpec(
                CONFIG.d_model,
                router.paths,
                0.5,
                router.mean_experts,
                layer,
                4,
                CONFIG.vocab_size,
                CONFIG.max_seq_len,
                3,
                7,
            )
            router.build(spec)
            router.fit(TrainStatistics(torch.arange(CONFIG.vocab_size)))
    decoder = Decoder(CONFIG, placed, expert_width=16)
    decoder.reset(0)
    return trained_like(decoder)


@pytest.mark.parametrize("selection", ["topk", "causal"])
@pytest.mark.parametrize("family", FAMILIES)
def test_it_runs_learns_and_is_charged_for_its_plan(family: str, selection: Selection) -> None:
    decoder, ids = decoder_of(family), tokens()
    run = run_of(ids, selection)
    logits = decoder(run)
    token_loss = nn.functional.cross_entropy(
        logits.flatten(0, 1), ids.flatten(), reduction="none"
    ).view_as(ids)
    loss = token_loss.mean()
    for router, trace in zip(decoder.routers, run.traces, strict=True):
        assert trace.plan.mask.shape[2] == len(router.paths.names)
        assert (
            router.allows_none
            or trace.plan.mask.any(-1).all()
            or trace.plan.mask.shape[1] < SEQ_LEN
        )
        trace.token_loss = token_loss.detach()
        trace.labels = torch.where(ids % 2 == 0, ids % len(router.paths.names), -100)
        for auxiliary in router.aux_losses.values():
            loss = loss + auxiliary.weight * auxiliary.compute(trace)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in decoder.parameters() if p.grad is not None)
    for router, trace in zip(decoder.routers, run.traces, strict=True):
        if selection == "topk":  # whatever learns is reached by a gradient
            assert (
                all(p.grad is not None and p.grad.any() for p in router.parameters())
                or family == "reinforce"
            )
        with torch.no_grad():
            router.after_step(trace)
    ledger = Ledger(decoder, SEQ_LEN, {})
    cost = ledger.charge_step(run.counts, ids.numel())
    paths = sum(
        float((trace.plan.mask.sum(1).double() * torch.tensor(site.token)).sum())
        for trace, site in zip(run.traces, ledger.sites, strict=True)
    )
    assert cost >= 3 * (ledger.fixed * ids.numel() + paths)


@pytest.mark.parametrize("family", ["relaxed", "straight_through"])
def test_training_both_paths_is_paid_for_both(family: str) -> None:
    decoder = decoder_of(family)
    shares: dict[str, float] = {}
    for selection in ("topk", "causal"):
        run = run_of(tokens(), selection)
        decoder(run)
        shares[selection] = (
            sum(float(trace.plan.mask.float().sum(-1).mean()) for trace in run.traces) / 2
        )
    assert shares == {"topk": 2.0, "causal": 1.0}


def test_a_wrapped_router_is_calibrated_through_its_wrapper() -> None:
    router = decoder_of("supervised").routers[0]
    assert isinstance(router, Supervised)
    assert router.knob is not None
    router.knob.fill_(0.25)
    assert router.inner.knob is not None
    assert float(router.inner.knob) == 0.25


def test_staged_routing_sends_only_the_blocks_tokens_to_experts() -> None:
    run = run_of(tokens())
    decoder_of("staged_mode")(run)
    ffn, block = run.traces[:2]
    kept = block.plan.mask[..., 1].sum(1)
    assert block.paths.site is Site.BLOCK
    assert ffn.plan.mask.shape[1] == int(kept.max())
    assert torch.equal(ffn.plan.mask.any(-1).sum(1), kept)
