"""The training loop: the same twice, stops at the allowance, follows the schedule, charges the
executed work and nothing else.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.config.recipe import TrainConfig
from bench.config.row import RouterTraining
from bench.data import train_batch
from bench.errors import Diverged
from bench.model.assemble import Model
from bench.model.equip import resolve_losses
from bench.routing.contract import (
    AuxLoss,
    LayerTrace,
    Router,
    RouterInput,
    RouterSpec,
    RoutingPlan,
    TrainStatistics,
)
from bench.routing.paths import experts
from bench.routing.registry import Entry
from bench.training.loop import train
from bench.training.optim import trapezoid
from bench.training.task import Allowance, Trained, TrainTask
from tests.world import LEARNED, ROWS, SEQ_LEN, model, row_id, run_of, split

BATCH = 4
STEP_TOKENS = BATCH * SEQ_LEN
INFINITY = float("inf")
Point = tuple[int, int, float, float]
"""Step, tokens, FLOPs and mean loss of a probe."""


def config(**changes: Any) -> TrainConfig:
    return TrainConfig.model_validate(
        {"reference_tokens": 1, "batch_size": BATCH, "probes": 1000} | changes
    )


def steps(count: float) -> Allowance:
    return Allowance(INFINITY, count * STEP_TOKENS)


def fit(
    found: Model, allowance: Allowance | None = None, **changes: Any
) -> tuple[Trained, list[Point]]:
    """Train for three steps, with a probe after each of them."""
    points: list[Point] = []

    def probe(step: int, tokens: int, flops: float, seconds: float, loss: float) -> None:
        points.append((step, tokens, flops, loss))

    meter = changes.pop("meter", None)
    fields: dict[str, Any] = {"config": config(), "seq_len": SEQ_LEN, "seed": 0} | changes
    task = TrainTask(split(), **fields)
    return train(found, task, allowance or steps(3), probe=probe, meter=meter), points


def losses(points: list[Point]) -> list[float]:
    return [loss for *_, loss in points]


@pytest.mark.parametrize(("name", "options"), ROWS, ids=row_id)
def test_the_same_run_twice_and_amid_others_is_the_same_to_the_last_bit(
    name: str, options: Mapping[str, object]
) -> None:
    one, other = model(name, options), model(name, options)
    _, first = fit(one)
    torch.manual_seed(99)  # other tests may have left a state
    np.random.seed(99)
    fit(model("mlp_gate", seed=3), steps(1))
    _, second = fit(other)
    assert losses(first) == losses(second)
    assert len(losses(first)) == 3
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            one.decoder.state_dict().values(), other.decoder.state_dict().values(), strict=True
        )
    )


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"config": config(adam_lr=0.004)}, {"lr_scale": 2.0}]
)
def test_seed_and_learning_rates_do_matter(changes: dict[str, Any]) -> None:
    assert losses(fit(model("mlp_gate"))[1]) != losses(fit(model("mlp_gate"), **changes)[1])


def test_a_twins_noise_is_its_own_and_its_data_are_not() -> None:
    one, twin = (
        losses(fit(model("random", {"over": "ffn"}), steps(5), router_seed=seed)[1])
        for seed in (0, 1)
    )
    assert one[0] == twin[0]  # every path is silent at the start
    assert one[-1] != twin[-1]


@pytest.mark.parametrize(("name", "options"), LEARNED, ids=row_id)
def test_every_parameter_moves_and_the_loss_falls(name: str, options: Mapping[str, object]) -> None:
    found = model(name, options)
    before = {n: p.detach().clone() for n, p in found.decoder.named_parameters()}
    _, points = fit(found, steps(8))
    assert losses(points)[-1] < losses(points)[0] - 0.01
    still = [n for n, p in found.decoder.named_parameters() if torch.equal(p, before[n])]
    frozen = [n for n in still if name == "frozen_router" and "router" in n]
    assert still == frozen


@pytest.mark.parametrize(("name", "options"), ROWS, ids=row_id)
def test_flops_run_out_within_a_step(name: str, options: Mapping[str, object]) -> None:
    found = model(name, options)
    allowance = Allowance(3 * found.solution.target * STEP_TOKENS * 1.5, INFINITY)
    done, points = fit(found, allowance)
    total = found.ledger.total
    last_step = total - (points[-2][2] if len(points) > 1 else 0.0)
    assert 0 <= total - allowance.flops < last_step
    assert done.steps == len(points)
    assert done.tokens == done.steps * STEP_TOKENS


def test_matched_tokens_stop_at_the_tokens() -> None:
    done = {name: fit(model(name), steps(3))[0] for name in ("dense", "cheap", "mlp_gate")}
    assert {trained.tokens for trained in done.values()} == {3 * STEP_TOKENS}
    assert fit(model("dense"), steps(2.5))[0].tokens == 3 * STEP_TOKENS


def test_a_step_costs_three_forward_passes_of_its_plans() -> None:
    found = model("dense_matched")
    done, _ = fit(found)
    forward = (
        found.ledger.fixed
        + found.ledger.routers
        + sum(site.at((1.0,), SEQ_LEN) for site in found.ledger.sites)
    )
    assert found.ledger.total == pytest.approx(3 * forward * done.tokens, rel=1e-9)
    assert found.ledger.spent["backbone/backward"] == 2 * found.ledger.spent["backbone/forward"]
    assert done.optimizer_flops > 0


def test_the_schedule_follows_the_share_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    original: Callable[..., Any] = torch.optim.AdamW.step

    def spy(self: torch.optim.AdamW, *args: Any) -> Any:
        seen.append(self.param_groups[0]["lr"])
        return original(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    recipe = config(adam_lr=0.5, warmup=0.2, decay=0.4)
    found = model("cheap")
    _, points = fit(
        found, Allowance(3 * found.solution.target * STEP_TOKENS * 5, INFINITY), config=recipe
    )
    budget = 3 * found.solution.target * STEP_TOKENS * 5
    before = [0.0, *(flops for _, _, flops, _ in points[:-1])]
    assert seen == pytest.approx([0.5 * trapezoid(flops / budget, 0.2, 0.4) for flops in before])
    assert len(seen) > 5


def by_hand(found: Model, count: int) -> list[float]:
    """Losses of plain full-batch steps of a decoder without routers, its matrices left alone, by a
    loop of our own.
    """
    parameters = [found.decoder.embedding.weight, found.decoder.head.weight]
    adam = torch.optim.AdamW(parameters, lr=0.0, betas=(0.9, 0.95), weight_decay=0.0)
    out: list[float] = []
    for step in range(count):
        ids = torch.from_numpy(
            train_batch(split(), seed=0, step=step, batch_size=BATCH, seq_len=SEQ_LEN).tokens
        )
        loss = F.cross_entropy(
            found.decoder(run_of(ids[:, :-1])).flatten(0, 1), ids[:, 1:].flatten()
        )
        adam.zero_grad()
        loss.backward()
        adam.param_groups[0]["lr"] = 0.002 * trapezoid(step / count, 0.1, 0.5)
        adam.step()
        out.append(loss.item())
    return out


def test_the_loop_is_the_one_written_out() -> None:
    recipe = config(muon_lr=1e-30)  # matrices do not move beyond rounding
    _, points = fit(model("cheap"), steps(8), config=recipe)
    assert losses(points) == pytest.approx(by_hand(model("cheap"), 8), rel=1e-5)


class _Watched(Router):
    """Two experts, both run; keeps the inputs of the loss and of the hooks."""

    paths = experts(2)
    mean_experts = 2.0
    needs = frozenset({"token_loss"})

    def __init__(self, weight: float = 0.0) -> None:
        super().__init__()
        self.seen: list[LayerTrace] = []
        self.aux_losses = {"watched": AuxLoss(self._loss, weight)}

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.register_buffer("steps", torch.zeros(()))
        self.register_buffer("counts", torch.zeros(spec.vocab_size))

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        return RoutingPlan(torch.ones(*inputs.tokens.shape, 2, dtype=torch.bool))

    def fit(self, statistics: TrainStatistics) -> None:
        self.counts += statistics.unigram * 2.0

    def after_step(self, trace: LayerTrace) -> None:
        self.steps.add_(trace.plan.mask.float().mean())

    def _loss(self, trace: LayerTrace) -> Tensor:
        self.seen.append(trace)
        return trace.update.square().mean()


def watched(weight: float, **training: Any) -> Model:
    recipe = RouterTraining.model_validate(training)
    entry = Entry("watched", "tests", "", _Watched)
    return model("hash", {"weight": weight}, entry=entry, training=recipe)


def test_an_auxiliary_loss_of_weight_zero_neither_runs_nor_is_charged() -> None:
    free, paid = watched(0.0), watched(0.5)
    for found in (free, paid):
        fit(found)
    assert all(not router.seen for router in free.decoder.routers)
    assert all(router.seen for router in paid.decoder.routers)
    assert free.ledger.spent["auxiliary/forward"] == 0
    assert paid.ledger.spent["auxiliary/forward"] > 0
    assert paid.ledger.spent["auxiliary/backward"] == 2 * paid.ledger.spent["auxiliary/forward"]
    off = watched(0.5, losses={"watched": 0.0})
    fit(off)
    assert off.ledger.total == free.ledger.total


def test_hooks_are_run_once_a_step_and_charged() -> None:
    found = watched(0.0)
    counts = torch.arange(50)
    done, _ = fit(found, statistics=lambda: TrainStatistics(counts))
    for router in found.decoder.routers:
        assert float(router.steps) == pytest.approx(done.steps)
        assert torch.equal(router.counts, counts * 2.0)
    assert found.ledger.spent["router/after_step"] > 0


def test_token_losses_are_shown_to_those_who_ask() -> None:
    found = watched(0.5)
    _, points = fit(found, steps(1))
    shown = found.decoder.routers[0].seen[-1].token_loss
    assert shown is not None
    assert shown.shape == (BATCH, SEQ_LEN)
    assert shown.mean().item() == pytest.approx(losses(points)[0], rel=1e-5)
    assert not shown.requires_grad


def test_weights_by_name_win_over_the_routers_own() -> None:
    router = watched(0.5).decoder.routers[0]
    for losses, weight in (({}, 0.5), ({"watched": 2.0, "other": 1.0}, 2.0)):
        terms = resolve_losses(router, RouterTraining(losses=losses))
        assert {name: term.weight for name, term in terms.items()} == {"watched": weight}
    assert resolve_losses(router, RouterTraining(losses={"watched": 0.0})) == {}


def test_a_loss_that_is_no_number_stops_the_run() -> None:
    found = model("dense")
    found.decoder.embedding.weight.data.fill_(torch.nan)
    with pytest.raises(Diverged, match="not finite"):
        fit(found)
