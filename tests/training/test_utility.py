"""Oracle labels against flipping single tokens in the whole model, and against the counter."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.backbone.passes import Pass, ask, make_pass
from bench.config.recipe import TrainConfig
from bench.errors import UserError
from bench.evaluation.evaluate import evaluate
from bench.model.assemble import Model, assemble
from bench.rng import generator, key
from bench.routing.capacity import gate_plan, upgrade
from bench.routing.contract import (
    AuxLoss,
    LayerTrace,
    OracleRequest,
    Router,
    RouterInput,
    RouterSpec,
    RoutingPlan,
)
from bench.routing.paths import BLOCK_GATE, FFN_GATE, Paths, experts
from bench.routing.registry import Entry
from bench.training.loop import train
from bench.training.task import Allowance, TrainTask
from bench.training.utility import Oracle, random_flips
from tests.audit import audit
from tests.world import CONFIG, SEQ_LEN, blueprint, split, trained_like, windows

BATCH = 3
IDS = torch.randint(CONFIG.vocab_size, (BATCH, SEQ_LEN + 1), generator=generator(0, "oracle text"))
SEEN: list[tuple[int, Tensor]] = []
"""Layer and labels that the auxiliary loss of `Gate` was given."""


class Gate(Router):
    """Noisy top-k by a linear score, and asks for utility."""

    paths: Paths = FFN_GATE
    needs = frozenset({"utility"})
    weight: float | None = None
    dense = False

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.score = nn.Linear(spec.d_model, 1)
        self.aux_losses["labels"] = AuxLoss(_look, 1.0, frozenset({"utility"}))
        self.enable_knob()

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        scores = self.score(inputs.hidden).squeeze(-1)
        if inputs.selection == "topk":
            scores = scores + torch.randn(scores.shape, generator=inputs.generator)
        chosen, count = upgrade(scores, inputs, self.spec, self.knob)
        p = scores.sigmoid()
        if self.dense and inputs.selection == "topk":
            weight = torch.stack((1 - p, p), dim=-1)
            return RoutingPlan(
                torch.ones_like(weight, dtype=torch.bool), weight, counts=(scores.shape[1],) * 2
            )
        return gate_plan(
            chosen, count, scores, None if self.weight is None else (1 - p, self.weight * p)
        )


def _look(trace: LayerTrace) -> Tensor:
    assert trace.utility is not None
    SEEN.append((trace.layer, trace.utility.clone()))
    return trace.utility.nan_to_num(0.0).sum() * 0.0


class Scaled(Gate):
    weight = 2.0


class Block(Gate):
    paths = BLOCK_GATE
    weight = 1.0


class Dense(Gate):
    dense = True
    trains_dense = True


GATES = [Gate, Scaled, Block, Dense]
POLICIES = ["off_policy", "on_policy"]


def build(router: type[Router], **changes: Any) -> Model:
    """A model whose weights do something, with a request for each router."""
    found = assemble(replace(blueprint("mlp_gate"), entry=Entry("x", "gate", "", router)), 0)
    trained_like(found.decoder, 0.2)
    for router_ in found.decoder.routers:
        router_.oracle = OracleRequest(**changes)
    return found


def passed(found: Model, oracle: Oracle, ids: Tensor = IDS) -> tuple[Pass, Tensor]:
    """A training pass with its history, and the loss of each token."""
    run = make_pass(
        ids[:, :-1], None, selection="topk", generator=generator(0, "routing"), progress=0.5
    )
    run.history = oracle.history()
    with torch.no_grad():
        return run, losses(found.decoder(run), ids)


def losses(logits: Tensor, ids: Tensor = IDS) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(
        ids[:, 1:].shape
    )


def leave_one_out(found: Model, run: Pass, site: int, token: int, path: int, policy: str) -> Tensor:
    """Losses of the whole model, run anew from its embedding with one token a sequence forced onto
    a path at one site.
    """
    routers = found.decoder.routers
    masks = [trace.plan.mask.clone() for trace in run.traces]
    weights = [trace.plan.weight for trace in run.traces]

    def decide(router: Router, inputs: RouterInput) -> RoutingPlan:
        here = routers.index(router)
        plan = ask(router, inputs)
        if here < site:
            assert torch.equal(plan.mask, masks[here])
            return plan
        if here == site:
            mask, weight = masks[here], None if weights[here] is None else weights[here].clone()
            mask[:, token] = False
            mask[:, token, path] = True
            if weight is not None and router.trains_dense:
                weight[:, token] = 1.0
            return RoutingPlan(mask, weight)
        if policy == "on_policy":
            return plan
        upgrade_all = torch.zeros_like(plan.mask)
        upgrade_all[..., 1] = True
        return RoutingPlan(upgrade_all, None if router.trains_dense else plan.weight)

    again = make_pass(
        IDS[:, :-1],
        None,
        selection="topk",
        generator=generator(0, "routing"),
        progress=0.5,
        decide=decide,
    )
    with torch.no_grad():
        return losses(found.decoder(again))[:, token]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("router", GATES)
def test_a_single_flip_is_worth_what_running_the_whole_model_twice_says(
    router: type[Router], policy: str
) -> None:
    found = build(router, policy=policy)
    oracle = Oracle(found, 0, torch.float32)
    run, token_loss = passed(found, oracle)
    for site, token in ((0, 0), (0, 7), (1, 7), (2, SEQ_LEN - 1)):
        flip = torch.zeros(BATCH, SEQ_LEN, dtype=torch.bool)
        flip[:, token] = True
        utility, costs = oracle.fork(run, site, flip, IDS[:, 1:], token_loss)
        base, upgraded = (leave_one_out(found, run, site, token, path, policy) for path in (0, 1))
        torch.testing.assert_close(utility[:, token], base - upgraded, rtol=0, atol=2e-6)
        assert utility[:, token].abs().max() > 1e-4
        assert len(costs) == (1 if policy == "on_policy" and router is not Dense else 2)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("router", GATES)
def test_forks_cost_what_the_counter_counts(router: type[Router], policy: str) -> None:
    found = build(router, policy=policy, layers="all")
    ids = IDS
    before = dict(found.ledger.spent)
    lines = audit(found, ids, torch.zeros_like(ids))
    line = next(line for line in lines["topk"] if line.component == "oracle")
    assert line.counted == pytest.approx(line.ledger, rel=1e-12)
    assert line.counted > found.ledger.fixed
    assert not [line for line in lines["causal"] if line.component == "oracle"]
    assert dict(found.ledger.spent) == before


def fit(found: Model, steps: int = 6, seed: int = 0) -> list[float]:
    recipe = TrainConfig.model_validate(
        {"reference_tokens": 1, "batch_size": BATCH, "probes": 1000}
    )
    points: list[float] = []
    SEEN.clear()
    allowance = Allowance(float("inf"), steps * BATCH * SEQ_LEN)
    task = TrainTask(split(), recipe, SEQ_LEN, seed)
    train(found, task, allowance, probe=lambda *p: points.append(p[-1]))
    return points


@pytest.mark.parametrize("fraction", [0.01, 0.25, 1.0])
def test_one_layer_a_step_gets_labels_for_its_share_of_tokens(fraction: float) -> None:
    found = build(Gate, flip_fraction=fraction)
    fit(found)
    assert len(SEEN) == 1 + 6  # the first step computes the loss once more to price it
    assert len({layer for layer, _ in SEEN}) > 1
    for _, labels in SEEN:
        assert (~labels.isnan()).sum(1).tolist() == [max(1, round(fraction * SEQ_LEN))] * BATCH


def test_all_layers_on_request() -> None:
    fit(build(Gate, layers="all"), steps=1)
    assert [layer for layer, _ in SEEN] == [1, 1, 2, 2, 3, 3]
    assert all((~labels.isnan()).any() for _, labels in SEEN)


def test_labels_change_neither_training_nor_its_noise_where_no_loss_uses_them() -> None:
    """The same router without the need: losses to the last bit.

    The forks are the whole difference in cost.
    """

    class Blind(Gate):
        needs = frozenset()

        def build(self, spec: RouterSpec) -> None:
            super().build(spec)
            self.aux_losses.clear()

    asking, blind = build(Gate), build(Blind)
    assert fit(asking) == fit(blind)
    assert "oracle/forward" not in blind.ledger.spent
    for part in ("backbone/forward", "paths/forward", "router/forward"):
        assert asking.ledger.spent[part] == blind.ledger.spent[part]


def test_no_router_sees_a_label_when_it_is_asked_nor_does_evaluation_find_any() -> None:
    seen: list[Tensor | None] = []

    class Watching(Gate):
        def forward(self, inputs: RouterInput) -> RoutingPlan:
            if inputs.previous is not None:
                seen.append(inputs.previous.utility)
            return super().forward(inputs)

    found = build(Watching, policy="on_policy", layers="all")
    fit(found, steps=2)
    assert any((~labels.isnan()).any() for _, labels in SEEN)
    spent = found.ledger.spent["oracle/forward"]
    evaluate(found, windows(), batch_size=4)
    assert len(seen) > 2 * 2  # forks ask too
    assert all(labels is None for labels in seen)
    assert (
        found.ledger.spent["oracle/forward"],
        "oracle/forward" in found.evaluation_ledger.spent,
    ) == (spent, False)


def test_forks_are_drawn_by_seed_and_step_alone() -> None:
    found = build(Gate)

    def labels(step: int, seed: int = 0) -> list[Tensor | None]:
        oracle = Oracle(found, seed, torch.float32)
        run, token_loss = passed(found, oracle)
        torch.manual_seed(step)
        oracle.label(run, IDS[:, 1:], token_loss, step)
        return [
            None if trace.utility is None else trace.utility.nan_to_num(99) for trace in run.traces
        ]

    def same(a: list[Tensor | None], b: list[Tensor | None]) -> bool:
        return all(
            x is y is None or (x is not None and y is not None and x.equal(y))
            for x, y in zip(a, b, strict=True)
        )

    assert same(labels(4), labels(4))
    assert not same(labels(4), labels(5))
    assert not same(labels(4), labels(4, seed=1))


def test_what_is_charged_is_what_the_forks_should_cost_by_hand() -> None:
    """On policy at layer l: attention and FFN from l on, the head, and the routers after l."""
    found = build(Gate, policy="on_policy")
    start = 5
    site = key(0, "oracle", start) % 3
    oracle = Oracle(found, 0, torch.float32)
    run, token_loss = passed(found, oracle)
    fork = oracle.label(run, IDS[:, 1:], token_loss, start)[0]
    d, full, cheap, tokens = CONFIG.d_model, CONFIG.ffn_width, CONFIG.cheap_rank, BATCH * SEQ_LEN
    layers = CONFIG.num_layers - run.traces[site].layer
    attention = tokens * 8 * d**2 + 4 * d * BATCH * SEQ_LEN * (SEQ_LEN + 1) / 2
    upgraded = sum(int(counts[:, 1].sum()) for counts in fork.counts)
    paths = upgraded * 6 * d * full + (layers * tokens - upgraded) * 4 * d * cheap
    routers = sum(other.router for other in found.ledger.sites[site + 1 :]) * tokens
    expected = layers * attention + paths + tokens * 2 * d * CONFIG.vocab_size + routers
    assert found.ledger.spent["oracle/forward"] == expected == fork.active


def test_flips_are_even_over_positions() -> None:
    flips = sum(
        random_flips(IDS[:1], 0.25, generator(seed, "flips"))[0].double() for seed in range(2000)
    )
    assert isinstance(flips, Tensor)
    assert float((flips / 2000 - 6 / 25).abs().max()) < 5 * (0.25 * 0.75 / 2000) ** 0.5


def test_a_router_without_a_base_path_has_no_upgrade_to_value() -> None:
    class Chooser(Router):
        paths = experts(2)
        needs = frozenset({"utility"})

        def forward(self, inputs: RouterInput) -> RoutingPlan:
            even = inputs.tokens % 2 == 0
            return RoutingPlan(torch.stack((even, ~even), dim=-1))

    found = assemble(replace(blueprint("mlp_gate"), entry=Entry("x", "expert", "", Chooser)), 0)
    with pytest.raises(UserError, match="needs 'utility' with paths"):
        Oracle(found, 0, torch.float32)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"policy": "both"}, "policy"),
        ({"flip_fraction": 0.0}, "is 0.0"),
        ({"flip_fraction": 1.5}, "is 1.5"),
        ({"layers": "two"}, "layers"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(changes: Mapping[str, Any], said: str) -> None:
    with pytest.raises((ValueError, TypeError), match=said):
        OracleRequest(**changes)
