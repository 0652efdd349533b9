"""A router is charged its cost in use, and a malformed plan stops the run."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bench.backbone.passes import ask
from bench.config.recipe import TrainConfig
from bench.errors import RuleBroken
from bench.evaluation.calibrate import calibrate
from bench.evaluation.evaluate import evaluate
from bench.flops.meter import METERED, Meter
from bench.model.assemble import Model, assemble
from bench.routing.capacity import gate_plan
from bench.routing.contract import (
    AuxLoss,
    LayerTrace,
    Router,
    RouterInput,
    RouterSpec,
    RoutingPlan,
    TrainStatistics,
)
from bench.routing.paths import FFN_GATE
from bench.routing.registry import Entry
from bench.runner.cells import Cell
from bench.runner.resolve import resolve
from bench.runner.run_cell import run_cell
from bench.training.checkpoint import Checkpoints
from bench.training.loop import train
from bench.training.task import Allowance, TrainTask
from tests.world import (
    CONFIG,
    SEQ_LEN,
    blueprint,
    own_registry,
    split,
    suite,
    suite_data,
    windows,
    write_text,
)

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


@torch.no_grad()
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
            work(inputs)
        return super().forward(inputs)


class WorksInSecondBatch(Gate):
    def forward(self, inputs: RouterInput) -> RoutingPlan:
        if inputs.selection == "causal" and self.calls >= 1:
            work(inputs)
        return super().forward(inputs)


class WorksInFirstSteps(Gate):
    def forward(self, inputs: RouterInput) -> RoutingPlan:
        if len(inputs.tokens) > 1 and inputs.progress == 0:
            work(inputs)
        return super().forward(inputs)


class LeavesTorch(Gate):
    def forward(self, inputs: RouterInput) -> RoutingPlan:
        if len(inputs.tokens) > 1:
            inputs.hidden.detach().numpy().sum()
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


def steps(
    found: Model,
    count: int,
    statistics: Callable[[], TrainStatistics] | None = None,
    **options: Any,
) -> None:
    allowance = Allowance(float("inf"), count * RECIPE.batch_size * SEQ_LEN)
    task = TrainTask(split(), RECIPE, SEQ_LEN, seed=0, statistics=statistics)
    train(found, task, allowance, **options)


@pytest.mark.parametrize(
    ("router", "says"),
    [
        (
            LeavesTorch,
            r"Tensor\.numpy in LeavesTorch\.forward \(test_meter\.py:\d+\) takes data out",
        ),
        (WrongCounts, r"expected a mask with plan\.counts \(24, 0\) in .*; saw \[\[12, 12\]\]\."),
        (
            WrongShape,
            r"expected plan\.mask torch\.bool \(3, 24, 2\); saw torch\.bool \(3, 24, 1\)\.",
        ),
        (
            WrongType,
            r"expected plan\.mask torch\.bool \(3, 24, 2\); saw torch\.int64 \(3, 24, 2\)\.",
        ),
        (WrongWeight, r"expected plan\.weight of shape \(3, 24, 2\); saw \(3, 24\)\."),
    ],
)
def test_a_plan_that_cannot_be_run_or_priced_stops_training_at_the_first_step(
    router: type[Router], says: str
) -> None:
    found = build(router)
    with pytest.raises(RuleBroken, match=says) as error:
        steps(found, 1, meter=found.meter(0))
    assert str(error.value).startswith("Router of layer 1, topk selection: ")


EXTRA = 2 * CONFIG.d_model * 64
"""FLOPs a token of `work`."""


def prices(found: Model) -> list[list[float]]:
    return [
        [site.router for site in ledger.sites] for ledger in (found.ledger, found.evaluation_ledger)
    ]


def test_work_that_only_batches_show_raises_the_price_at_the_first_step() -> None:
    found, plain = build(WorksInBatches), build(Gate)
    assert prices(found) == prices(plain)
    steps(found, 1, meter=found.meter(0))
    dearer = [price + EXTRA for price in prices(plain)[0]]
    assert prices(found) == [dearer, prices(plain)[1]]
    tokens = RECIPE.batch_size * SEQ_LEN
    assert found.ledger.spent["router/forward"] == sum(dearer) * tokens


def test_work_that_begins_later_is_charged_from_a_metered_step_on() -> None:
    found, plain = build(WorksLater), build(Gate)
    seed = next(
        seed for seed in range(100) if any(found.meter(seed).due(step) for step in range(1, 6))
    )
    first = next(step for step in range(1, 6) if found.meter(seed).due(step))
    steps(found, 6, meter=found.meter(seed))
    tokens, alone, more = RECIPE.batch_size * SEQ_LEN, sum(prices(plain)[0]), 3 * EXTRA
    expected = 6 * alone * tokens + (6 - first) * more * tokens
    assert found.ledger.spent["router/forward"] == pytest.approx(expected, rel=1e-12)


def test_all_batches_of_an_evaluation_pay_the_largest_count() -> None:
    """The first batch is cheap, the second shows the cost of the router."""
    found, plain = build(WorksInSecondBatch), build(Gate)
    meter = found.meter(0)
    spent = evaluate(found, windows(), 4, decide=meter.decide).active
    assert spent == pytest.approx(
        evaluate(plain, windows(), 4, decide=plain.meter(0).decide).active + 3 * EXTRA, rel=1e-12
    )


def test_a_calibration_under_the_meter_pays_what_it_sees() -> None:
    found, plain = build(WorksInBatches), build(Gate)
    for each in (found, plain):
        each.evaluation_ledger.spent.clear()
    dearer = calibrate(found, windows(), 1.0, decide=found.meter(0).decide)
    assert dearer - calibrate(plain, windows(), 1.0) == pytest.approx(
        3 * EXTRA / plain.solution.target, rel=1e-9
    )


def test_a_resumed_run_pays_the_raised_price(tmp_path: Path) -> None:
    """The price was raised at the first step, which the resumed run does not run again."""

    def stop(step: int, *_: object) -> None:
        if step == 2:
            raise KeyboardInterrupt

    whole = build(WorksInFirstSteps)
    steps(whole, 4, meter=whole.meter(0))
    with pytest.raises(KeyboardInterrupt):
        broken = build(WorksInFirstSteps)
        checkpoints = Checkpoints(tmp_path, "key", 0)
        steps(broken, 4, meter=broken.meter(0), checkpoints=checkpoints, probe=stop)
    resumed = build(WorksInFirstSteps)
    steps(resumed, 4, meter=resumed.meter(0), checkpoints=Checkpoints(tmp_path, "key", 0))
    assert prices(resumed) == prices(whole) != prices(build(Gate))
    assert resumed.ledger.spent == whole.ledger.spent


def test_an_honest_router_is_the_same_under_the_meter() -> None:
    watched, alone = build(Gate), build(Gate)
    steps(watched, 4, meter=watched.meter(0))
    steps(alone, 4)
    state = alone.decoder.state_dict()
    assert all(
        torch.equal(tensor, state[name]) for name, tensor in watched.decoder.state_dict().items()
    )
    assert dict(watched.ledger.spent) == dict(alone.ledger.spent)


def test_metered_steps_are_few_begin_with_the_first_and_follow_from_the_seed() -> None:
    found = build(Gate)
    due = [list(filter(found.meter(seed).due, range(20_000))) for seed in (0, 0, 1)]
    assert due[0] == due[1] != due[2]
    assert due[0][0] == 0
    expected = 20_000 * METERED
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


PLUGIN = """
from bench.routing import FFN_GATE, Router
from bench.routing.registry import register
from bench.routing.capacity import gate_plan

@register("plain", family="test")
class Plain(Router):
    paths = FFN_GATE

    def forward(self, inputs):
        return gate_plan(inputs.positions % 2 == 0, None)

@register("dearer", family="test")
class Dearer(Plain):
    def forward(self, inputs):
        if len(inputs.tokens) > 1:
            inputs.hidden @ inputs.hidden.mT
        return super().forward(inputs)
"""


@pytest.mark.parametrize(("router", "status"), [("plain", "ok"), ("dearer", "off_budget")])
def test_a_dearer_router_is_off_budget_in_its_record(
    router: str, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a router without a knob that was let in: its own check would have found it."""
    monkeypatch.setattr("bench.runner.run_cell.checks_of", lambda *_: ())
    plugin = tmp_path / "dearer.py"
    plugin.write_text(PLUGIN, encoding="utf-8")
    changed = suite_data(write_text(tmp_path))["evaluation"] | {"tolerance": 0.003}
    config = suite(write_text(tmp_path), evaluation=changed)
    with own_registry():
        record = run_cell(resolve(Cell(config, config.row(router), 0, (plugin,))), "test", Path())
    assert (record.status, record.reason[:6]) == (status, "" if status == "ok" else "spends")
