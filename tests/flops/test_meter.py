"""What a router does in the run against what it was priced for.

Every way of doing more is found.
"""

import re
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bench.backbone.passes import ask
from bench.config.suite import TrainConfig
from bench.errors import RuleBroken
from bench.evaluation.evaluate import evaluate
from bench.flops.meter import INSPECTED, Meter
from bench.model.assemble import Model, assemble
from bench.routing.contract import (
    FFN_GATE,
    AuxLoss,
    LayerTrace,
    Router,
    RouterInput,
    RouterSpec,
    RoutingPlan,
    TrainStatistics,
)
from bench.routing.registry import Entry
from bench.routing.select import gate_plan
from bench.runner.cells import Cell
from bench.runner.resolve import resolve
from bench.runner.run_cell import run_cell
from bench.training.loop import Allowance, train
from tests.world import SEQ_LEN, blueprint, own_registry, split, suite, windows, write_text

RECIPE = TrainConfig(reference_tokens=1, batch_size=3)


class Gate(Router):
    """Every other token takes the full path; cheaters derive from it."""

    paths = FFN_GATE

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.score = nn.Linear(spec.d_model, 1)
        self.calls = 0

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        self.calls += 1
        scores = self.score(inputs.hidden).squeeze(-1)
        return gate_plan(inputs.positions % 2 == 0, inputs.tokens.shape[1] // 2, scores)


def work(inputs: RouterInput) -> None:
    """A product that costs more than the gate."""
    _ = inputs.hidden @ inputs.hidden.new_ones(inputs.hidden.shape[-1], 64)


class WorksLater(Gate):
    def forward(self, inputs: RouterInput) -> RoutingPlan:
        if self.calls > 0:
            work(inputs)
        return super().forward(inputs)


class WorksInBatches(Gate):
    def forward(self, inputs: RouterInput) -> RoutingPlan:
        if len(inputs.tokens) > 1:
            with torch.no_grad():
                work(inputs)
        return super().forward(inputs)


class WorksInEvaluation(Gate):
    def forward(self, inputs: RouterInput) -> RoutingPlan:
        if inputs.selection == "causal" and inputs.progress == 1.0:
            work(inputs)
        return super().forward(inputs)


class InPlace(Gate):
    def forward(self, inputs: RouterInput) -> RoutingPlan:
        plan = super().forward(inputs)
        inputs.hidden.data.mul_(1.01)
        return plan


class Labels(Gate):
    def forward(self, inputs: RouterInput) -> RoutingPlan:
        inputs.tokens.zero_()
        return super().forward(inputs)


class LeavesTorch(Gate):
    def forward(self, inputs: RouterInput) -> RoutingPlan:
        if len(inputs.tokens) > 1:
            inputs.hidden.detach().numpy().sum()
        return super().forward(inputs)


class Elsewhere(Gate):
    """Has its work done by another thread, where no counter looks."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        def spin() -> None:
            until = time.thread_time() + 0.06
            while time.thread_time() < until:
                pass

        thread = threading.Thread(target=spin)
        thread.start()
        thread.join()
        return super().forward(inputs)


class WrongCounts(Gate):
    def forward(self, inputs: RouterInput) -> RoutingPlan:
        return replace(super().forward(inputs), counts=(inputs.tokens.shape[1], 0))


class WrongShape(Gate):
    def forward(self, inputs: RouterInput) -> RoutingPlan:
        plan = super().forward(inputs)
        plan.mask = plan.mask[..., :1]
        return plan


class WrongType(Gate):
    def forward(self, inputs: RouterInput) -> RoutingPlan:
        plan = super().forward(inputs)
        plan.mask = plan.mask.long()
        return plan


class WrongWeight(Gate):
    def forward(self, inputs: RouterInput) -> RoutingPlan:
        plan = super().forward(inputs)
        plan.weight = plan.mask[..., 0].float()
        return plan


def build(router: type[Router]) -> Model:
    return assemble(replace(blueprint("mlp_gate"), entry=Entry("x", "gate", "", router)), 0)


def steps(found: Model, count: int, **options: Any) -> None:
    allowance = Allowance(float("inf"), count * RECIPE.batch_size * SEQ_LEN)
    train(found, split(), RECIPE, allowance, seq_len=SEQ_LEN, seed=0, **options)


@pytest.mark.parametrize(
    ("router", "says"),
    [
        (
            WorksInBatches,
            r"Router of layer 1, topk selection: it costs [\d,]+ FLOPs a token in the run; its price, taken before, is \d+\.",
        ),
        (InPlace, r"Router of layer 1, topk selection: it changed its inputs in place\."),
        (Labels, r"Router of layer 1, topk selection: it changed its inputs in place\."),
        (
            LeavesTorch,
            r"Router of layer 1, .* Tensor\.numpy in LeavesTorch\.forward \(test_meter\.py:\d+\) takes data out of torch",
        ),
        (Elsewhere, r"Router of layer \d, topk selection: other threads worked for 0\.\d+ s"),
        (
            WrongCounts,
            r"Router of layer 1, topk selection: plan\.counts is \(24, 0\), which the mask does not keep",
        ),
        (
            WrongShape,
            r"Router of layer 1, topk selection: plan\.mask is torch\.bool \(3, 24, 1\); it must be torch\.bool \(3, 24, 2\)\.",
        ),
        (
            WrongType,
            r"Router of layer 1, topk selection: plan\.mask is torch\.int64 \(3, 24, 2\); it must be torch\.bool \(3, 24, 2\)\.",
        ),
        (
            WrongWeight,
            r"Router of layer 1, topk selection: plan\.weight has shape \(3, 24\); it must be \(3, 24, 2\)\.",
        ),
    ],
)
def test_a_router_that_breaks_a_rule_in_training_is_stopped_at_the_first_step(
    router: type[Router], says: str
) -> None:
    found = build(router)
    with pytest.raises(RuleBroken) as error:
        steps(found, 1, meter=found.meter(0))
    assert re.match(says, str(error.value)), error.value


def test_work_that_begins_later_is_found_at_an_inspected_step() -> None:
    found = build(WorksLater)
    seed = next(
        seed for seed in range(100) if any(found.meter(seed).due(step) for step in range(1, 6))
    )
    with pytest.raises(RuleBroken, match=r"Router of layer 1, topk selection: it costs"):
        steps(found, 6, meter=found.meter(seed))


def test_work_that_only_the_official_evaluation_sees_is_found_there() -> None:
    found = build(WorksInEvaluation)
    meter = found.meter(0)
    steps(found, 2, meter=meter)
    with pytest.raises(RuleBroken, match=r"Router of layer 1, causal selection: it costs"):
        evaluate(found, windows(), 4, decide=meter.decide)


def test_an_honest_router_is_the_same_under_inspection() -> None:
    watched, alone = build(Gate), build(Gate)
    steps(watched, 4, meter=watched.meter(0))
    steps(alone, 4)
    state = alone.decoder.state_dict()
    assert all(
        torch.equal(tensor, state[name]) for name, tensor in watched.decoder.state_dict().items()
    )
    assert dict(watched.ledger.spent) == dict(alone.ledger.spent)


def test_inspected_steps_are_few_begin_with_the_first_and_follow_from_the_seed() -> None:
    found = build(Gate)
    due = [list(filter(found.meter(seed).due, range(20_000))) for seed in (0, 0, 1)]
    assert due[0] == due[1] != due[2]
    assert due[0][0] == 0
    expected = 20_000 * INSPECTED
    assert abs(len(due[0]) - expected) < 5 * expected**0.5
    meter = found.meter(0)
    assert meter.decide_at(due[0][1]) == meter.decide
    assert meter.decide_at(next(step for step in range(100) if step not in due[0])) is ask


class PaidWork(Gate):
    """Does all it may do outside of `forward`.

    In `build`, in `fit`, in `after_step` and in a loss that grows dearer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.losses = 0
        self.aux_losses["grows"] = AuxLoss(self.grows, 0.1)

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        _ = torch.ones(7, 11) @ torch.ones(11, 13)

    def fit(self, statistics: TrainStatistics) -> None:
        _ = torch.ones(3, 5) @ torch.ones(5, 2)

    def after_step(self, trace: LayerTrace) -> None:
        _ = torch.ones(2, 3) @ torch.ones(3, 4)

    def grows(self, trace: LayerTrace) -> torch.Tensor:
        self.losses += 1
        size = 4 if self.losses <= 2 else 40
        return (torch.ones(size, size) @ torch.ones(size, size)).sum() * 0


def test_work_outside_of_forward_is_charged_to_the_flop(monkeypatch: pytest.MonkeyPatch) -> None:
    found = build(PaidWork)
    sites = len(found.decoder.routers)
    assert found.ledger.spent["router/build"] == sites * 2 * 7 * 11 * 13
    monkeypatch.setattr(Meter, "due", lambda self, step: True)
    statistics = TrainStatistics(torch.ones(50, dtype=torch.long))
    steps(found, 2, meter=found.meter(0), statistics=lambda: statistics)
    assert found.ledger.spent["router/fit"] == sites * 2 * 3 * 5 * 2
    assert found.ledger.spent["router/after_step"] == 2 * sites * 2 * 2 * 3 * 4
    small, large = (2 * size**3 + size**2 + 1 for size in (4, 40))
    assert found.ledger.spent["auxiliary/forward"] == sites * (small + large)


def test_a_breach_makes_the_record_of_a_cell_invalid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a router that was let in: its own check would have found it."""
    monkeypatch.setattr("bench.runner.run_cell.checks_of", lambda *_: ())
    plugin = tmp_path / "dearer.py"
    plugin.write_text(
        """
from bench.routing.contract import FFN_GATE, Router
from bench.routing.registry import register
from bench.routing.select import gate_plan

@register("dearer", family="test")
class Dearer(Router):
    paths = FFN_GATE

    def forward(self, inputs):
        if len(inputs.tokens) > 1:
            inputs.hidden @ inputs.hidden.mT
        return gate_plan(inputs.positions % 2 == 0, None)
""",
        encoding="utf-8",
    )
    config = suite(write_text(tmp_path))
    with own_registry():
        record = run_cell(resolve(Cell(config, config.row("dearer"), 0, (plugin,))), "test", Path())
    assert (record.status, record.loss) == ("invalid", None)
    assert record.reason.startswith("Router of layer 1, topk selection: it costs")
