"""Routers on their experts against blocks of Transformers with the same weights.

Outputs, gradients of the router and of the input, and auxiliary losses with their gradients, in
float32 to 1e-5.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.backbone.dispatch import dispatch_paths
from bench.backbone.sites import PathSet
from bench.rng import generator, normal
from bench.routing.contract import LayerTrace, Router, RouterInput, RouterSpec
from bench.routing.load_routers import find
from tests.libraries import library

transformers = library("transformers")

BATCH, SEQ, WIDTH, HIDDEN = 3, 17, 16, 12
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


class Ours:
    """A router of the bench with a bank of experts, outside of any decoder."""

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        torch.manual_seed(0)
        self.router: Router = find(name).make(options)
        paths, mean = self.router.paths, self.router.mean_experts
        self.router.build(RouterSpec(WIDTH, paths, 1.0, mean, 0, 1, 8, SEQ, 1, 0))
        self.paths = PathSet(paths, WIDTH, HIDDEN, 4, HIDDEN)
        for name, parameter in self.paths.named_parameters():
            rows = normal(0, name, parameter[..., 0].numel(), parameter.shape[-1])
            parameter.data.copy_(rows.view_as(parameter) * 0.3)

    @property
    def shared(self) -> int:
        """Experts that every token takes; they come first in the bank."""
        return len(self.router.paths.always)

    @property
    def logits(self) -> Tensor:
        """The weight of the router."""
        return self.router.get_parameter("logits.weight")

    def run(self, hidden: Tensor) -> tuple[Tensor, LayerTrace]:
        ids = torch.zeros(BATCH, SEQ, dtype=torch.long)
        positions = torch.arange(SEQ).expand(BATCH, SEQ)
        seen = RouterInput(hidden, ids, positions, None, None, None, 0.0, "topk")
        plan = self.router(seen)
        update, _ = dispatch_paths(hidden, plan, self.paths)
        return update, LayerTrace(0, self.router.paths, seen, plan, update, {})

    def copy_bank(self, experts: nn.Module) -> None:
        """Give the weights to stacked experts of Transformers, gate and up in one matrix."""
        bank = self.paths.bank
        rows = torch.cat((bank.gate, bank.up), dim=1)[self.shared :]
        experts.get_parameter("gate_up_proj").data.copy_(rows)
        experts.get_parameter("down_proj").data.copy_(bank.down[self.shared :])


def hidden_states() -> Tensor:
    noise = generator(1, "parity")
    return torch.randn(BATCH, SEQ, WIDTH, generator=noise).requires_grad_()


def agree(ours: Ours, theirs: nn.Module, weight: Tensor) -> LayerTrace:
    """Compare outputs, and gradients of a loss that weighs every output differently."""
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    traces: list[LayerTrace] = []
    for side in (ours, theirs):
        hidden = hidden_states()
        if side is ours:
            out, trace = ours.run(hidden)
            traces.append(trace)
        else:
            out = theirs(hidden)
        factors = torch.linspace(-1, 1, out.numel()).view_as(out)
        wanted = (ours.logits if side is ours else weight, hidden)
        gradients = torch.autograd.grad((out * factors).sum(), wanted, retain_graph=True)
        found.append((out, *gradients))
    for mine, other in zip(*found, strict=True):
        assert torch.allclose(mine, other, **TOLERANCE), float((mine - other).abs().max())
    assert found[0][1].abs().max() > 1e-2  # the router has a gradient to compare
    return traces[0]


def losses_agree(
    ours: Ours, name: str, trace: LayerTrace, weight: Tensor, theirs: Callable[[Tensor], Tensor]
) -> None:
    """Compare a loss of a plan, and its gradient in the matrix of the router.

    Args:
        ours: the router, which made the plan.
        name: the loss.
        trace: trace of the plan.
        weight: the same matrix in a block of Transformers.
        theirs: logits `[batch, seq, expert]` -> their loss.
    """
    mine = ours.router.aux_losses[name].compute(trace)
    other = theirs(trace.inputs.hidden.detach() @ weight.T)
    assert torch.allclose(mine, other, **TOLERANCE)
    (reached,) = torch.autograd.grad(mine, ours.logits, retain_graph=True)
    (expected,) = torch.autograd.grad(other, weight)
    assert torch.allclose(reached, expected, **TOLERANCE), float((reached - expected).abs().max())
    assert expected.abs().max() > 1e-2  # there is a gradient to compare


def test_top2_is_the_block_of_mixtral() -> None:
    from transformers.models.mixtral import modeling_mixtral as mixtral

    ours = Ours("top2_moe", {})
    config = mixtral.MixtralConfig(
        hidden_size=WIDTH,
        intermediate_size=HIDDEN,
        num_local_experts=8,
        num_experts_per_tok=2,
    )
    block = mixtral.MixtralSparseMoeBlock(config)
    block.gate.weight.data.copy_(ours.logits)
    ours.copy_bank(block.experts)
    trace = agree(ours, block, block.gate.weight)

    def theirs(logits: Tensor) -> Tensor:
        # Their loss counts both choices in full, ours by their share.
        return mixtral.load_balancing_loss_func((logits.flatten(0, 1),), 8, 2) / 2

    losses_agree(ours, "load_balance", trace, block.gate.weight, theirs)


def test_split_experts_are_the_block_of_qwen3_moe() -> None:
    from transformers.models.qwen3_moe import modeling_qwen3_moe as qwen

    ours = Ours("top2_moe", {"granularity": 4})
    config = qwen.Qwen3MoeConfig(
        hidden_size=WIDTH,
        moe_intermediate_size=HIDDEN,
        num_experts=32,
        num_experts_per_tok=8,
        norm_topk_prob=True,
    )
    block = qwen.Qwen3MoeSparseMoeBlock(config)
    block.gate.weight.data.copy_(ours.logits)
    ours.copy_bank(block.experts)
    trace = agree(ours, block, block.gate.weight)

    def theirs(logits: Tensor) -> Tensor:
        return qwen.load_balancing_loss_func((logits.flatten(0, 1),), 32, 8) / 8

    losses_agree(ours, "load_balance", trace, block.gate.weight, theirs)


@pytest.mark.parametrize("groups", [1, 4])
def test_deepseek_v3_is_its_block(groups: int) -> None:
    from transformers.models.deepseek_v3 import modeling_deepseek_v3 as deepseek

    kept = max(1, groups // 2)
    options = {"num_shared": 2, "scale": 2.5, "groups": groups, "groups_kept": kept}
    ours = Ours("deepseek_v3", options)
    config = deepseek.DeepseekV3Config(
        hidden_size=WIDTH,
        moe_intermediate_size=HIDDEN,
        n_routed_experts=16,
        num_experts_per_tok=4,
        n_shared_experts=2,
        n_group=groups,
        topk_group=kept,
        norm_topk_prob=True,
        routed_scaling_factor=2.5,
    )
    block = deepseek.DeepseekV3MoE(config)
    bias = torch.linspace(-0.2, 0.2, 16)
    block.gate.weight.data.copy_(ours.logits)
    block.gate.e_score_correction_bias.copy_(bias)
    ours.router.get_buffer("balancer.bias").copy_(bias)
    ours.copy_bank(block.experts)
    # Their two shared experts are one of twice the width.
    bank, shared = ours.paths.bank, block.shared_experts
    for name, rows in (("gate_proj", bank.gate), ("up_proj", bank.up)):
        shared.get_submodule(name).weight.data.copy_(rows[:2].flatten(0, 1))
    shared.down_proj.weight.data.copy_(torch.cat(list(bank.down[:2]), dim=1))
    agree(ours, block, block.gate.weight)


class OneOfOurs(nn.Module):
    """An expert of our bank in the place of one of theirs, which has a rectifier and no gate."""

    def __init__(self, paths: PathSet, index: int) -> None:
        super().__init__()
        self.paths, self.index = paths, index

    def forward(self, x: Tensor) -> Tensor:
        return self.paths.bank(x, self.index)


def test_top1_is_the_block_of_switch() -> None:
    from transformers.models.switch_transformers import modeling_switch_transformers as switch

    ours = Ours("top1_moe", {"balance": [{"method": "auxiliary", "scope": "sequence"}, "z"]})
    config = switch.SwitchTransformersConfig(
        d_model=WIDTH, d_ff=HIDDEN, num_experts=8, expert_capacity=SEQ, router_jitter_noise=0.0
    )
    block = switch.SwitchTransformersSparseMLP(config)
    block.router.classifier.weight.data.copy_(ours.logits)
    for index in range(8):
        block.experts[f"expert_{index}"] = OneOfOurs(ours.paths, index)
    weight = block.router.classifier.weight
    trace = agree(ours, block, weight)

    def balance(logits: Tensor) -> Tensor:
        return switch.load_balancing_loss_func(logits.softmax(-1), logits.argmax(-1))

    losses_agree(ours, "load_balance", trace, weight, balance)
    losses_agree(ours, "router_z", trace, weight, switch.router_z_loss_func)
