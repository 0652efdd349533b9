"""Options of router training in whole models: each acts on a router or is refused in one line, is charged, and resumes."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.assemble import Model
from bench.backbone.decoder import DecoderConfig
from bench.checkpoint import Checkpoints
from bench.config import RouterTraining, TrainConfig
from bench.contract import FFN_GATE, AuxLoss, LayerTrace, Router, RouterInput, RouterSpec, RoutingPlan, experts
from bench.equip import is_trained
from bench.errors import UserError
from bench.evaluate import evaluate
from bench.flops.audit import audit
from bench.flops.inspector import Inspector
from bench.losses import load_balance_single, router_z
from bench.registry import Entry
from bench.schedule import trapezoid
from bench.select import gate_plan, top_k_mask
from bench.step import active_losses
from bench.suite import parse_suite
from bench.train import Allowance, Trained, train
from tests.small import ROWS, SEQ_LEN, model, row_id, run_of, split, tokens, windows

SMALL = DecoderConfig(vocab_size=50, d_model=16, num_layers=2, num_heads=2, ffn_width=64, cheap_rank=2, max_seq_len=32)
BATCH, STEPS = 4, 3
ALL = {"noise": "gaussian", "balance_bias": 0.01, "expert_dropout": 0.2}
OPTIONS: list[dict[str, Any]] = [
    {"init_scale": 0.01},
    {"lr_ratio": 0.1, "clip": 1e-8, "weight_decay": 0.5},
    {"noise": "gaussian"},
    {"noise": "noisy_top_k"},
    {"noise": "jitter", "noise_scale": 0.5},
    {"balance_bias": 0.05},
    {"expert_dropout": 0.5},
    {"losses": {"load_balance": 1.0, "importance": 1.0}},
    {"losses": {"load": 1.0, "router_z": 1.0}},
]
REFUSAL = r"^Router '\w+' cannot be trained with '[\w: ]+': .+\. Leave it out, or give the row a `training` of its own\.$"


def built(name: str, options: Mapping[str, object] | None = None, entry: Entry | None = None, **training: Any) -> Model:
    changes = {} if entry is None else {"entry": entry}
    recipe = RouterTraining.model_validate(training)
    return model(name, options, decoder=SMALL, routed_layers=(1,), budget=0.7, training=recipe, **changes)


def fit(found: Model, steps: int = STEPS, checkpoints: Checkpoints | None = None, probe: Any = None, **training: Any) -> Trained:
    recipe = TrainConfig(reference_tokens=1, batch_size=BATCH, warmup=0.0, decay=0.0, probes=steps, router=RouterTraining(**training))
    allowance = Allowance(math.inf, steps * BATCH * SEQ_LEN)
    inspector = Inspector(found, 0)
    return train(found, split(), recipe, allowance, seq_len=SEQ_LEN, seed=0, inspector=inspector, checkpoints=checkpoints, probe=probe)


def weights(found: Model) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in found.decoder.state_dict().items() if ".toolkit." not in name}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


TRAINED = [(name, options) for name, options in ROWS if is_trained(model(name, options).decoder.routers[0])]
PLAIN = [row for row in ROWS if row not in TRAINED]


@pytest.mark.parametrize(("name", "options"), TRAINED, ids=row_id)
def test_each_option_changes_what_a_router_learns_or_is_refused_in_one_line(name: str, options: Mapping[str, object]) -> None:
    base = built(name, options)
    fit(base)
    refused = 0
    for training in OPTIONS:
        try:
            found = built(name, options, **training)
        except UserError as error:
            assert re.fullmatch(REFUSAL, str(error)), error
            refused += 1
            continue
        fit(found, **training)
        assert not same(weights(found), weights(base)), training
    assert refused <= 4


@pytest.mark.parametrize(("name", "options"), PLAIN, ids=row_id)
def test_routers_with_nothing_to_train_are_what_they_were(name: str, options: Mapping[str, object]) -> None:
    everything = ALL | {"init_scale": 0.0, "float32": True, "losses": {"load_balance": 1.0}}
    one, other = built(name, options), built(name, options, **everything)
    assert other.decoder.routers[0].toolkit is None
    assert same(one.decoder.state_dict(), other.decoder.state_dict())
    assert one.ledger.sites == other.ledger.sites
    assert active_losses(other.decoder.routers[0], {"load_balance": 1.0}) == []


def test_which_shipped_routers_refuse_what() -> None:
    with pytest.raises(UserError, match=r"'mlp_gate' cannot be trained with 'balance_bias': it balances experts.*this router has none"):
        built("mlp_gate", balance_bias=0.001)
    with pytest.raises(UserError, match=r"'mod' cannot be trained with 'expert_dropout': its paths are skip and block, not experts"):
        built("mod", expert_dropout=0.1)
    built("top2_moe", **ALL)


class _Bypassing(Router):
    """Chooses by itself, and has a matrix in the middle and a vector at the end."""

    def __init__(self, over: str = "gate", silent: bool = False) -> None:
        super().__init__()
        self.paths, self.silent = FFN_GATE if over == "gate" else experts(3), silent

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.first = nn.Linear(spec.d_model, 4)
        self.score = nn.Linear(4, 1 if self.paths.base else 3)
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        scores = self.gain * self.score(self.first(inputs.hidden))
        if self.paths.base:
            p = scores.squeeze(-1)
            kept = None if self.silent else p
            return gate_plan(top_k_mask(p, p.shape[1] // 2), None, kept, (1 - p, p))
        return RoutingPlan(scores == scores.amax(-1, keepdim=True), scores.softmax(-1), None if self.silent else scores)


BYPASSING = Entry("bypassing", "tests", "", _Bypassing)


@pytest.mark.parametrize(
    ("options", "training", "said"),
    [
        ({}, {"noise": "gaussian"}, "'noise': its scores do not pass through bench.select.perturb"),
        ({}, {"noise": "noisy_top_k"}, "'noise': its scores do not pass through bench.select.perturb"),
        ({"over": "experts"}, {"expert_dropout": 0.1}, "'expert_dropout': its scores do not pass through bench.select.perturb"),
        ({"over": "experts"}, {"balance_bias": 0.1}, "'balance_bias': its scores do not pass through bench.select.top_experts or biased"),
        ({"silent": True}, {"losses": {"router_z": 0.1}}, "'losses: router_z': its plans have no scores"),
    ],
)
def test_a_router_that_bypasses_the_bench_is_refused_what_it_would_ignore(
    options: dict[str, Any], training: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=REFUSAL) as caught:
        built("mlp_gate", options, BYPASSING, **training)
    assert said in str(caught.value)


def test_a_router_that_bypasses_the_bench_takes_what_the_harness_does_alone() -> None:
    for training in ({"noise": "jitter"}, {"init_scale": 0.1}, {"float32": True}, {"losses": {"router_z": 0.1}}):
        fit(built("mlp_gate", {}, BYPASSING, **training), **training)


class _Vector(Router):
    """Learns one number."""

    paths = FFN_GATE

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        p = self.gain * inputs.hidden[..., 0]
        return gate_plan(top_k_mask(p, p.shape[1] // 2), None, p, (p, p))


def test_no_matrix_no_last_layer() -> None:
    with pytest.raises(UserError, match=r"^Router 'vector' cannot be trained with 'init_scale': it has no weight matrix"):
        built("mlp_gate", {}, Entry("vector", "tests", "", _Vector), init_scale=0.1)


@pytest.mark.parametrize(
    ("name", "entry", "scaled"),
    [
        ("mlp_gate", None, {"score.weight", "score.bias"}),
        ("mod", None, {"score.weight"}),
        ("top2_moe", None, {"logits.weight"}),
        ("jepa_gate", None, {"score.weight", "score.bias"}),
        ("mlp_gate", BYPASSING, {"score.weight", "score.bias"}),
    ],
)
def test_the_last_layer_is_scaled_and_no_other(name: str, entry: Entry | None, scaled: set[str]) -> None:
    one, other = (built(name, {}, entry, **training).decoder.routers[0] for training in ({}, {"init_scale": 0.125}))
    for key, value in one.named_parameters():
        assert torch.equal(dict(other.named_parameters())[key], value * (0.125 if key in scaled else 1)), key


def test_a_small_start_is_a_uniform_one() -> None:
    """The weight of either expert of the top two is a half, where probabilities are all alike."""
    spread = {}
    for scale in (1.0, 0.001):
        found = built("top2_moe", init_scale=scale)
        run = run_of(tokens())
        found.decoder(run)
        weight = run.traces[0].plan.weight
        assert weight is not None
        spread[scale] = (weight[weight > 0] - 0.5).abs().max().item()
    assert spread[0.001] < 0.001 < 0.05 < spread[1.0]


@pytest.mark.parametrize(
    "training", [{}, {"lr_ratio": 0.25}, {"clip": 1e-4}, {"weight_decay": 2.0}, {"lr_ratio": 3.0, "weight_decay": 1.0}]
)
def test_a_step_of_a_router_is_adamw_written_out(training: dict[str, Any]) -> None:
    """From the gradients that reached its parameters: clipped as one, then Adam with decoupled decay, in plain numbers."""
    found = built("mlp_gate")
    router = found.decoder.routers[0]
    parameters = list(router.parameters())
    start = [p.detach().double().clone() for p in parameters]
    gradients: list[list[Tensor]] = [[] for _ in parameters]
    for parameter, seen in zip(parameters, gradients, strict=True):
        parameter.register_post_accumulate_grad_hook(lambda p, seen=seen: seen.append(p.grad.double().clone()))  # type: ignore[union-attr]
    fit(found, **training)
    rate, decay = 0.002 * training.get("lr_ratio", 1.0), training.get("weight_decay", 0.0)
    first, second = ([torch.zeros_like(p) for p in start] for _ in range(2))
    for step in range(STEPS):
        raw = [seen[step] for seen in gradients]
        norm = torch.stack([g.square().sum() for g in raw]).sum().sqrt()
        factor = min(1.0, training["clip"] / (norm.item() + 1e-6)) if "clip" in training else 1.0
        lr = rate * trapezoid(step / STEPS, 0.0, 0.0)
        for index, gradient in enumerate(raw):
            g = gradient * factor
            first[index] = 0.9 * first[index] + 0.1 * g
            second[index] = 0.95 * second[index] + 0.05 * g**2
            corrected = first[index] / (1 - 0.9 ** (step + 1)) / ((second[index] / (1 - 0.95 ** (step + 1))).sqrt() + 1e-8)
            start[index] = start[index] * (1 - lr * decay) - lr * corrected
    for parameter, expected in zip(parameters, start, strict=True):
        assert torch.allclose(parameter.double(), expected, atol=1e-6)


def test_a_learnt_deviation_is_priced_in_training_and_free_in_evaluation() -> None:
    base, noisy = built("top2_moe"), built("top2_moe", noise="noisy_top_k")
    router = noisy.decoder.routers[0]
    width, count = SMALL.d_model, 8
    assert router.toolkit is not None
    assert router.toolkit.noise_weight.shape == (width, count)
    more = noisy.ledger.sites[0].router - base.ledger.sites[0].router
    assert 2 * width * count < more <= 2 * width * count + 5 * count
    assert noisy.evaluation_ledger.sites[0].router == base.evaluation_ledger.sites[0].router
    assert noisy.solution == base.solution
    jittered = built("top2_moe", noise="jitter")
    assert jittered.ledger.sites[0].router - base.ledger.sites[0].router == width
    balanced = built("top2_moe", balance_bias=0.001)
    fit(balanced)
    assert balanced.ledger.spent["router/after_step"] > 0


@pytest.mark.parametrize(
    ("name", "training"), [("top2_moe", ALL), ("adaptive_moe", {**ALL, "noise": "noisy_top_k"}), ("mod", {"noise": "noisy_top_k"})]
)
def test_the_counter_finds_what_the_ledger_says(name: str, training: dict[str, Any]) -> None:
    found = built(name, **training)
    for lines in audit(found, tokens(2, SEQ_LEN + 1), torch.zeros(2, SEQ_LEN + 1, dtype=torch.long)).values():
        for line in lines:
            if line.phase == "forward":
                assert line.counted == pytest.approx(line.ledger, abs=2), line  # what a pass costs whatever its size


def test_standard_losses_are_weighed_by_name_and_a_routers_own_come_first() -> None:
    gate, adaptive, plain = (built(name).decoder.routers[0] for name in ("mlp_gate", "adaptive_moe", "hash"))
    assert [(name, weight, loss.compute) for name, weight, loss in active_losses(gate, {"router_z": 0.5})] == [("router_z", 0.5, router_z)]
    own = {name: loss.compute for name, _, loss in active_losses(adaptive, {"load_balance": 1.0, "importance": 0.1})}
    assert own["load_balance"] is load_balance_single
    assert set(own) == {"load_balance", "importance"}
    assert active_losses(gate, {}) == active_losses(plain, {"load_balance": 1.0}) == []


def test_a_standard_loss_is_charged_and_recorded() -> None:
    found = built("mlp_gate", losses={"router_z": 0.5})
    done = fit(found, losses={"router_z": 0.5})
    assert done.auxiliary["router_z"] > 0
    assert found.ledger.spent["auxiliary/forward"] > 0


class Killed(BaseException):
    """Stands for a signal."""


@pytest.mark.parametrize("training", [ALL | {"weight_decay": 0.1}, {"noise": "noisy_top_k", "balance_bias": 0.05}, {"noise": "jitter"}])
def test_a_run_that_was_killed_ends_as_it_would_have(training: dict[str, Any], tmp_path: Path) -> None:
    def kill(step: int, *_: object) -> None:
        if step == 3:
            raise Killed

    whole = built("top2_moe", **training)
    fit(whole, steps=6, **training)
    with pytest.raises(Killed):
        fit(built("top2_moe", **training), steps=6, checkpoints=Checkpoints(tmp_path, "key", 0), probe=kill, **training)
    resumed = built("top2_moe", **training)
    fit(resumed, steps=6, checkpoints=Checkpoints(tmp_path, "key", 0), **training)
    ends = [found.decoder.state_dict() for found in (whole, resumed)]
    assert same(*ends)
    assert whole.ledger.spent == resumed.ledger.spent
    if "balance_bias" in training:
        assert any(value.any() for name, value in ends[0].items() if name.endswith("toolkit.bias"))


def test_evaluation_keeps_the_bias_and_drops_the_noise() -> None:
    found, plain = built("top2_moe", **ALL), built("top2_moe")
    toolkit = found.decoder.routers[0].toolkit
    assert toolkit is not None
    masks = [evaluate(each, windows(), batch_size=4, keep=True).masks[0] for each in (found, found, plain)]
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(masks[0], masks[2])
    assert toolkit.bias is not None
    toolkit.bias[3] = 2.0
    assert evaluate(found, windows(), batch_size=4, keep=True).masks[0][..., 3].all()


def test_experts_are_weighed_without_the_bias() -> None:
    found = built("top2_moe", balance_bias=0.001)
    toolkit = found.decoder.routers[0].toolkit
    assert toolkit is not None and toolkit.bias is not None
    toolkit.bias[3] = 2.0
    run = run_of(tokens(), "causal")
    found.decoder(run)
    plan = run.traces[0].plan
    assert plan.scores is not None and plan.weight is not None
    p = plan.scores.softmax(-1) * plan.mask
    assert torch.allclose(plan.weight, p / p.sum(-1, keepdim=True))
    assert plan.mask[..., 3].all()


class _Own(Router):
    """A loss of a standard name, without scores in its plan: its own is used, so none are needed."""

    paths = FFN_GATE

    def __init__(self) -> None:
        super().__init__()
        self.aux_losses = {"router_z": AuxLoss(self._loss, 0.0)}

    def build(self, spec: RouterSpec) -> None:
        super().build(spec)
        self.score = nn.Linear(spec.d_model, 1)

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        p = self.score(inputs.hidden).squeeze(-1)
        return gate_plan(top_k_mask(p, p.shape[1] // 2), None, None, (p, p))

    def _loss(self, trace: LayerTrace) -> Tensor:
        return trace.update.square().mean()


def test_a_loss_of_its_own_needs_no_scores() -> None:
    built("mlp_gate", {}, Entry("own", "tests", "", _Own), losses={"router_z": 0.1})


@pytest.mark.parametrize(
    ("router", "said"),
    [
        ({"noise": "gauss"}, "'train.router.noise': Input should be 'none', 'gaussian', 'jitter' or 'noisy_top_k' (got 'gauss')"),
        ({"noise": "jitter", "noise_scale": 1.5}, "noise_scale is 1.5; jitter multiplies by 1 - scale to 1 + scale"),
        ({"noise_scale": 0.5}, "noise_scale is 0.5, but noise is 'none'; choose"),
        ({"expert_dropout": 1}, "'train.router.expert_dropout': Input should be less than 1"),
        ({"balance_bias": -0.1}, "'train.router.balance_bias': Input should be greater than or equal to 0"),
        ({"init_scal": 0.1}, "Unknown field 'train.router.init_scal'. Did you mean 'train.router.init_scale'?"),
    ],
)
def test_a_wrong_option_is_an_error_in_one_line(router: dict[str, Any], said: str) -> None:
    suite = {"name": "s", "purpose": "p", "backbone": "tiny", "routed_layers": [1], "seq_len": 32, "rows": ["mod"]}
    with pytest.raises(UserError) as caught:
        parse_suite({**suite, "train": {"reference_tokens": 100, "router": router}}, "s")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
