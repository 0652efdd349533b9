"""Merged experts: one expert a segment, its parameters averaged; charged for the averaging."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.backbone.decoder import Decoder
from bench.backbone.dispatch import dispatch_paths, reference_paths
from bench.backbone.sites import PathSet
from bench.errors import RuleBroken, UserError
from bench.flops.counter import OpCounter
from bench.flops.ledger import Ledger
from bench.flops.meter import check_plan
from bench.rng import generator, normal
from bench.routing.contract import Router, RouterInput, RouterSpec, RoutingPlan
from bench.routing.paths import Paths, Site, experts
from tests.world import CONFIG, run_of, tokens, trained_like

D_MODEL, WIDTH, COUNT, BATCH = 16, 10, 3, 2
EXECUTIONS = (dispatch_paths, reference_paths)


def path_set(segment: int) -> PathSet:
    made = PathSet(experts(COUNT, segment), D_MODEL, ffn_width=24, cheap_rank=4, expert_width=WIDTH)
    made.reset(lambda name, rows, columns: normal(0, name, rows, columns))
    made.bank.down.data.normal_(generator=generator(0, "down"))
    return made


def plan_of(merge: Tensor, seq: int) -> RoutingPlan:
    """Experts merged with these weights, the first path marked for every token."""
    mask = torch.zeros(len(merge), seq, merge.shape[2], dtype=torch.bool)
    mask[..., 0] = True
    return RoutingPlan(mask, merge=merge)


def random_case(seq: int, segment: int) -> tuple[PathSet, Tensor, Tensor]:
    noise = generator(seq, "case")
    merge = torch.randn(BATCH, -(-seq // segment), COUNT, generator=noise).softmax(-1)
    return path_set(segment), torch.randn(BATCH, seq, D_MODEL, generator=noise), merge


@pytest.mark.parametrize("execute", EXECUTIONS)
@pytest.mark.parametrize(("seq", "segment"), [(12, 4), (10, 4), (3, 8), (5, 1)])
def test_a_segment_runs_through_the_expert_that_is_merged_by_hand(
    execute: Any, seq: int, segment: int
) -> None:
    paths, x, merge = random_case(seq, segment)
    update, _ = execute(x, plan_of(merge, seq), paths)
    for row in range(BATCH):
        for token in range(seq):
            share = merge[row, token // segment]
            gate, up, down = (
                sum(share[e] * rows[e] for e in range(COUNT))
                for rows in (paths.bank.gate, paths.bank.up, paths.bank.down)
            )
            wanted = down @ (F.silu(gate @ x[row, token]) * (up @ x[row, token]))
            torch.testing.assert_close(update[row, token], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("execute", EXECUTIONS)
def test_all_weight_on_one_expert_is_running_that_expert(execute: Any) -> None:
    paths, x, _ = random_case(8, 4)
    chosen = torch.tensor([[0, 2], [1, 1]])
    merged, _ = execute(x, plan_of(F.one_hot(chosen, COUNT).float(), 8), paths)
    mask = F.one_hot(chosen, COUNT).bool().repeat_interleave(4, dim=1)
    paths.segment = None
    run, _ = dispatch_paths(x, RoutingPlan(mask), paths)
    torch.testing.assert_close(merged, run)


def test_gradients_are_those_of_the_reference_and_reach_weights_and_experts() -> None:
    paths, x, merge = random_case(10, 4)
    weight = torch.rand(BATCH, 10, COUNT, generator=generator(0, "weight"))
    found: list[tuple[Tensor, ...]] = []
    for execute in EXECUTIONS:
        leaves = [
            x.clone().requires_grad_(),
            merge.clone().requires_grad_(),
            weight.clone().requires_grad_(),
        ]
        plan = replace(plan_of(leaves[1], 10), weight=leaves[2])
        update = execute(leaves[0], plan, paths)[0]
        found.append(torch.autograd.grad(update.square().sum(), [*leaves, *paths.parameters()]))
    for one, other in zip(*found, strict=True):
        assert one.any()
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


class Merging(Router):
    """Weights of each segment from the mean of the one before; the first has even ones."""

    paths = experts(COUNT, segment=5)

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.score = torch.nn.Linear(spec.d_model, COUNT)

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        segments = inputs.hidden.split(5, dim=1)
        means = [torch.zeros_like(inputs.hidden[:, 0]), *(part.mean(1) for part in segments[:-1])]
        return plan_of(self.score(torch.stack(means, 1)).softmax(-1), inputs.hidden.shape[1])


@pytest.mark.parametrize("seq", [20, 24])
def test_the_ledger_charges_running_one_expert_and_merging_them_all_once_a_segment(
    seq: int,
) -> None:
    router = Merging()
    router.build(
        RouterSpec(
            CONFIG.d_model,
            router.paths,
            1.0,
            1.0,
            1,
            4,
            CONFIG.vocab_size,
            CONFIG.max_seq_len,
            3,
            7,
        )
    )
    decoder = trained_like(Decoder(CONFIG, {1: [router]}, expert_width=WIDTH))
    layer = decoder.layers[1]
    counter, run = OpCounter(), run_of(tokens(seq_len=seq))
    hooks = (layer.ffn.bank.register_forward_pre_hook(lambda *_: counter.__enter__() and None),)
    hooks += (layer.ffn.bank.register_forward_hook(lambda *_: counter.__exit__(None, None, None)),)
    decoder(run)
    one = 3 * CONFIG.d_model * WIDTH
    batch, segments = len(run.tokens), -(-seq // 5)
    wanted = batch * (seq * 2 * one + segments * 2 * one * COUNT)
    ledger = Ledger(decoder, seq, {})
    counts = run.counts
    assert counter.matrix == wanted
    assert ledger.sites[0].active(counts[0]) == pytest.approx(wanted, rel=1e-12)
    assert ledger.sites[0].executed(counts[0], padded=True) == pytest.approx(wanted, rel=1e-12)
    charged = ledger.charge_step(counts, run.tokens.numel())
    assert charged == pytest.approx(3 * (ledger.fixed * run.tokens.numel() + wanted), rel=1e-12)


def test_only_a_bank_is_merged() -> None:
    with pytest.raises(ValueError, match="only experts can be merged"):
        Paths(Site.FFN, ("expert0", "skip"), segment=4)


@pytest.mark.parametrize("execute", EXECUTIONS)
def test_plan_and_paths_must_agree(execute: Any) -> None:
    paths, x, merge = random_case(8, 4)
    with pytest.raises(UserError, match=r"plan\.merge is None"):
        execute(x, replace(plan_of(merge, 8), merge=None), paths)
    with pytest.raises(UserError, match=r"shape \(2, 1, 3\)"):
        execute(x, plan_of(merge[:, :1], 8), paths)
    paths.segment = None
    with pytest.raises(UserError, match=r"paths\.segment is None"):
        execute(x, plan_of(merge, 8), paths)


def test_a_plan_that_merges_marks_one_path_a_token() -> None:
    plan = plan_of(torch.full((2, 2, COUNT), 1 / COUNT), 8)
    ids = torch.zeros(2, 8, dtype=torch.long)
    inputs = RouterInput(torch.zeros(2, 8, 4), ids, ids, None, None, None, 0.0, "topk")
    check_plan(plan, inputs, COUNT, "here")
    with pytest.raises(RuleBroken, match="expected one path a token"):
        check_plan(replace(plan, mask=torch.zeros_like(plan.mask)), inputs, COUNT, "here")
