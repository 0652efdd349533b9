"""The ledger against real steps of every registered router, counted operation by operation."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from bench.backbone.passes import make_pass
from bench.flops.counter import UncountedOp
from bench.model.assemble import Model, assemble
from bench.routing.capacity import gate_plan
from bench.routing.contract import Router, RouterInput, RouterSpec, RoutingPlan
from bench.routing.paths import FFN_GATE
from bench.routing.registry import Entry
from bench.training.pretrain import adopt
from tests.audit import COMPONENTS, audit
from tests.world import (
    CONFIG,
    FROZEN_ROWS,
    ROWS,
    SEQ_LEN,
    backbone,
    blueprint,
    model,
    row_id,
    trained_like,
)

BATCH = 5
ESTIMATORS: list[tuple[str, dict[str, object]]] = [
    ("mlp_gate", {"estimator": estimator})
    for estimator in ("relaxed", "straight_through", "st_gumbel", "reinforce", "soft")
]
TEXT = torch.randint(
    CONFIG.vocab_size, (BATCH, SEQ_LEN + 1), generator=torch.Generator().manual_seed(0)
)
ONE_CALL = 32
"""Elements a call that a price taken on one sequence holds too many of.

Knobs and seeds of hashes, which do not grow with the batch.
"""


def at_work(found: Model) -> Model:
    """With weights that are not zero and knobs that send sequences along different numbers of
    tokens.
    """
    trained_like(found.decoder)
    for router in found.decoder.routers:
        if router.knob is not None:
            router.knob.fill_(
                -0.4 if router.knob.dim() == 0 and not list(router.parameters()) else 0.05
            )
    return found


def build(router: type[Router]) -> Model:
    return at_work(
        assemble(replace(blueprint("mlp_gate"), entry=Entry("x", "gate", "", router)), 0)
    )


@pytest.mark.parametrize(("name", "options"), ROWS, ids=row_id)
def test_executed_flops_are_the_counters_for_every_router(
    name: str, options: Mapping[str, object]
) -> None:
    """Forward to the last FLOP.

    Backward likewise for everything but routers, and those within half of the charge.
    """
    found = at_work(model(name, options))
    for selection, lines in audit(found, TEXT, torch.zeros_like(TEXT)).items():
        assert {line.component for line in lines} == set(COMPONENTS)
        assert {line.phase for line in lines} == (
            {"forward", "backward"} if selection == "topk" else {"forward"}
        )
        for line in lines:
            if line.component != "router":
                assert line.counted == pytest.approx(line.ledger, rel=1e-12), line
            elif line.phase == "forward":
                assert (
                    0
                    <= line.ledger - line.counted
                    <= ONE_CALL * (BATCH - 1) * CONFIG.num_layers * 8
                ), line
                assert line.counted == pytest.approx(line.ledger, rel=1e-2, abs=1e3)
            else:
                assert line.counted <= 1.5 * line.ledger, line


@pytest.mark.parametrize(("name", "options"), [*FROZEN_ROWS, *ESTIMATORS], ids=row_id)
def test_a_frozen_backbone_costs_no_weight_gradient_in_the_ledger_and_in_fact(
    name: str, options: Mapping[str, object]
) -> None:
    found = at_work(model(name, options))
    adopt(found, backbone())
    lines = {
        (line.component, line.phase): line
        for line in audit(found, TEXT, torch.zeros_like(TEXT))["topk"]
    }
    for (component, phase), line in lines.items():
        if component != "router":
            assert line.counted == pytest.approx(line.ledger, rel=1e-12), line
        elif phase == "backward":
            assert line.counted <= 1.5 * line.ledger, line
    assert lines["backbone", "backward"].counted < 2 * lines["backbone", "forward"].counted
    if not list(found.decoder.routers[0].parameters()):
        assert all(line.counted == 0 for (_, phase), line in lines.items() if phase == "backward")


def test_blocks_of_sequences_that_keep_different_numbers_of_tokens_are_padded_to_the_longest() -> (
    None
):
    found = at_work(model("mod"))
    run = make_pass(TEXT[:, :-1], None)
    with torch.no_grad():
        found.decoder(run)
    counts, tokens, ledger = run.counts, run.tokens.numel(), found.evaluation_ledger
    exact, padded = (ledger.executed(counts, tokens, padded=padded) for padded in (False, True))
    assert exact < padded
    lines = audit(found, TEXT, torch.zeros_like(TEXT))["causal"]
    assert (
        sum(line.counted for line in lines if line.component != "router")
        == padded - ledger.routers * tokens
    )


def test_an_audit_leaves_no_trace() -> None:
    found = at_work(model("mlp_gate"))
    before = {name: tensor.clone() for name, tensor in found.decoder.state_dict().items()}
    charged = dict(found.ledger.spent)
    audit(found, TEXT, torch.zeros_like(TEXT))
    assert all(
        torch.equal(tensor, before[name]) for name, tensor in found.decoder.state_dict().items()
    )
    assert all(p.grad is None for p in found.decoder.parameters())
    assert dict(found.ledger.spent) == charged
    for module in found.decoder.modules():
        assert not vars(module)["_forward_hooks"] and not vars(module)["_forward_pre_hooks"]


class Gate(Router):
    """Every other token takes the full path."""

    paths = FFN_GATE

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        return gate_plan(inputs.positions % 2 == 0, None)


class Straight(torch.autograd.Function):
    """Passes on its input, and multiplies matrices on the way back."""

    @staticmethod
    def forward(ctx: object, *args: Tensor) -> Tensor:
        return args[0].clone()

    @staticmethod
    def backward(ctx: object, *grad_outputs: Tensor) -> Tensor:
        square = grad_outputs[0].new_ones(64, 64)
        return grad_outputs[0] + 0 * (square @ square).sum()


class WorksBackward(Gate):
    """Does work in the backward pass that has no price."""

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.score = nn.Linear(spec.d_model, 1)

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        plan = super().forward(inputs)
        score = Straight.apply(self.score(inputs.hidden))
        return replace(plan, weight=score.expand(plan.mask.shape))


class UnpricedInTraining(Gate):
    """Transforms only where there are several sequences, which pricing has not."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        if len(inputs.tokens) > 1:
            torch.fft.rfft(inputs.hidden)
        return super().forward(inputs)


def test_work_hidden_in_the_backward_pass_is_attributed_to_the_router() -> None:
    lines = audit(build(WorksBackward), TEXT, torch.zeros_like(TEXT))["topk"]
    router = next(line for line in lines if line.component == "router" and line.phase == "backward")
    assert router.counted >= 3 * 2 * 64**3
    assert router.counted > 2 * router.ledger
    for line in lines:
        if line.component != "router":
            assert line.counted == pytest.approx(line.ledger, rel=1e-12)


def test_an_operation_without_a_price_is_named_with_its_module() -> None:
    with pytest.raises(
        UncountedOp,
        match=r"aten::_fft_r2c .* in UnpricedInTraining\.forward \(test_audit\.py:\d+\)",
    ):
        audit(build(UnpricedInTraining), TEXT, torch.zeros_like(TEXT))
