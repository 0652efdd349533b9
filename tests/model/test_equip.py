"""Options of router training in whole models.

Each acts on a router or is refused in one line, is charged, and resumes.
"""

import re
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.config.read_suite import parse_suite
from bench.config.row import RouterTraining
from bench.errors import UserError
from bench.model.assemble import Model
from bench.model.equip import is_trained, resolve_losses
from bench.routing.capacity import gate_plan, top_k_mask
from bench.routing.contract import AuxLoss, LayerTrace, Router, RouterInput, RouterSpec, RoutingPlan
from bench.routing.load_routers import find
from bench.routing.losses import router_z
from bench.routing.paths import FFN_GATE, experts
from bench.routing.registry import Entry
from bench.routing.scores import DROPPED
from bench.runner.rows import check_loss_names
from tests.world import EQUIPMENT, ROWS, equipped, fit, model, row_id, run_of, tokens

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
REFUSAL = (
    r"^Router '\w+' cannot be trained with '[\w: ]+': .+\. "
    r"Leave it out, or give the row a `training` of its own\.$"
)


def weights(found: Model) -> dict[str, Tensor]:
    return {
        name: value.clone()
        for name, value in found.decoder.state_dict().items()
        if ".noise." not in name
    }


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name]) for name, value in one.items()
    )


TRAINED = [
    (name, options) for name, options in ROWS if is_trained(model(name, options).decoder.routers[0])
]
PLAIN = [row for row in ROWS if row not in TRAINED]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), TRAINED, ids=row_id)
def test_each_option_changes_what_a_router_learns_or_is_refused_in_one_line(
    name: str, options: Mapping[str, object]
) -> None:
    base = equipped(name, options)
    fit(base, 3)
    refused = 0
    for training in OPTIONS:
        try:
            found = equipped(name, options, **training)
        except UserError as error:
            assert re.fullmatch(REFUSAL, str(error)), error
            refused += 1
            continue
        fit(found, 3, router=training)
        assert not same(weights(found), weights(base)), training
    assert refused <= 4


@pytest.mark.parametrize(("name", "options"), PLAIN, ids=row_id)
def test_routers_with_nothing_to_train_are_what_they_were(
    name: str, options: Mapping[str, object]
) -> None:
    everything = EQUIPMENT | {"init_scale": 0.0, "float32": True, "losses": {"load_balance": 1.0}}
    one, other = equipped(name, options), equipped(name, options, **everything)
    assert other.decoder.routers[0].noise is None
    assert same(one.decoder.state_dict(), other.decoder.state_dict())
    assert one.ledger.sites == other.ledger.sites
    assert other.losses == ({},)


def test_which_shipped_routers_refuse_what() -> None:
    with pytest.raises(
        UserError,
        match=r"'mlp_gate' cannot be trained with 'balance_bias': it balances experts.*"
        "this router has none",
    ):
        equipped("mlp_gate", balance_bias=0.001)
    with pytest.raises(
        UserError,
        match=r"'mod' cannot be trained with 'expert_dropout': its paths are skip and block, "
        "not experts",
    ):
        equipped("mod", expert_dropout=0.1)
    equipped("top2_moe", **EQUIPMENT)


def test_what_balances_experts_leaves_out_those_that_every_token_takes() -> None:
    found = equipped("top2_moe", {"num_shared": 2, "granularity": 2}, **EQUIPMENT)
    noise = found.decoder.routers[0].noise
    assert noise is not None and noise.bias is not None
    fit(found, 3, router=RouterTraining.model_validate(EQUIPMENT))
    assert noise.bias.shape == (16,)
    assert noise.bias.abs().sum() > 0


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
        return RoutingPlan(
            scores == scores.amax(-1, keepdim=True),
            scores.softmax(-1),
            None if self.silent else scores,
        )


BYPASSING = Entry("bypassing", "tests", "", _Bypassing)


@pytest.mark.parametrize(
    ("options", "training", "said"),
    [
        (
            {},
            {"noise": "gaussian"},
            "'noise': its scores do not pass through bench.routing.perturb",
        ),
        (
            {},
            {"noise": "noisy_top_k"},
            "'noise': its scores do not pass through bench.routing.perturb",
        ),
        (
            {"over": "experts"},
            {"expert_dropout": 0.1},
            "'expert_dropout': its scores do not pass through bench.routing.perturb",
        ),
        (
            {"over": "experts"},
            {"balance_bias": 0.1},
            "'balance_bias': its scores do not pass through bench.routing.top_experts or biased",
        ),
        (
            {"silent": True},
            {"losses": {"router_z": 0.1}},
            "'losses: router_z': its plans have no scores",
        ),
    ],
)
def test_a_router_that_bypasses_the_bench_is_refused_what_it_would_ignore(
    options: dict[str, Any], training: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=REFUSAL) as caught:
        equipped(BYPASSING, options, **training)
    assert said in str(caught.value)


def test_a_router_that_bypasses_the_bench_takes_what_the_harness_does_alone() -> None:
    for training in (
        {"noise": "jitter"},
        {"init_scale": 0.1},
        {"float32": True},
        {"losses": {"router_z": 0.1}},
    ):
        fit(equipped(BYPASSING, {}, **training), 3, router=training)


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
    with pytest.raises(
        UserError,
        match=r"^Router 'vector' cannot be trained with 'init_scale': it has no weight matrix",
    ):
        equipped(Entry("vector", "tests", "", _Vector), {}, init_scale=0.1)


@pytest.mark.parametrize(
    ("router", "scaled"),
    [
        ("mlp_gate", {"score.weight", "score.bias"}),
        ("mod", {"score.weight"}),
        ("top2_moe", {"logits.weight"}),
        ("jepa_gate", {"score.weight", "score.bias"}),
        (BYPASSING, {"score.weight", "score.bias"}),
    ],
)
def test_the_last_layer_is_scaled_and_no_other(router: str | Entry, scaled: set[str]) -> None:
    one, other = (
        equipped(router, **training).decoder.routers[0] for training in ({}, {"init_scale": 0.125})
    )
    for key, value in one.named_parameters():
        assert torch.equal(
            dict(other.named_parameters())[key], value * (0.125 if key in scaled else 1)
        ), key


def test_a_small_start_is_a_uniform_one() -> None:
    """The weight of either expert of the top two is a half, where probabilities are all alike."""
    spread = {}
    for scale in (1.0, 0.001):
        found = equipped("top2_moe", init_scale=scale)
        run = run_of(tokens())
        found.decoder(run)
        weight = run.traces[0].plan.weight
        assert weight is not None
        spread[scale] = (weight[weight > 0] - 0.5).abs().max().item()
    assert spread[0.001] < 0.001 < 0.05 < spread[1.0]


class _Own(Router):
    """A loss of a standard name, without scores in its plan.

    Its own is used, so none are needed.
    """

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
    equipped(Entry("own", "tests", "", _Own), {}, losses={"router_z": 0.1})


@pytest.mark.parametrize(
    ("router", "said"),
    [
        (
            {"noise": "gauss"},
            "'train.router.noise': Input should be 'none', 'gaussian', 'jitter' or 'noisy_top_k' "
            "(got 'gauss')",
        ),
        (
            {"noise": "jitter", "noise_scale": 1.5},
            "noise_scale is 1.5; jitter multiplies by 1 - scale to 1 + scale",
        ),
        ({"noise_scale": 0.5}, "noise_scale is 0.5, but noise is 'none'; choose"),
        ({"expert_dropout": 1}, "'train.router.expert_dropout': Input should be less than 1"),
        (
            {"balance_bias": -0.1},
            "'train.router.balance_bias': Input should be greater than or equal to 0",
        ),
        (
            {"init_scal": 0.1},
            "Unknown field 'train.router.init_scal'. Did you mean 'train.router.init_scale'?",
        ),
    ],
)
def test_a_wrong_option_is_an_error_in_one_line(router: dict[str, Any], said: str) -> None:
    suite = {
        "name": "s",
        "purpose": "p",
        "backbone": "tiny",
        "routed_layers": [1],
        "seq_len": 32,
        "rows": ["mod"],
    }
    with pytest.raises(UserError) as caught:
        parse_suite({**suite, "train": {"reference_tokens": 100, "router": router}}, "s")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_last_layer_of_reinforce_is_that_of_the_scores_and_not_of_the_baseline() -> None:
    options = {"estimator": "reinforce"}
    plain, scaled = (
        equipped("estimated_moe", options, init_scale=scale).decoder.routers[0]
        for scale in (1.0, 0.01)
    )
    assert torch.allclose(
        scaled.get_parameter("logits.weight"), 0.01 * plain.get_parameter("logits.weight")
    )
    assert torch.equal(
        scaled.get_parameter("baseline.weight"), plain.get_parameter("baseline.weight")
    )


def test_a_balance_bias_hears_choices_and_not_what_straight_through_runs_beside_them() -> None:
    found = equipped("estimated_moe", {"estimator": "straight_through"}, balance_bias=0.05)
    fit(found, 3, router={"balance_bias": 0.05})
    noise = found.decoder.routers[0].noise
    assert noise is not None and noise.bias is not None
    assert noise.bias.abs().max() > 0


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("estimated_moe", {}),
        # The threshold allows the second expert to every token.
        ("adaptive_moe", {"threshold": "fixed", "initial_threshold": 1.0}),
        ("top_p", {}),
        ("null_experts", {}),
    ],
)
def test_a_balance_bias_brings_no_dropped_expert_back(name: str, options: dict[str, Any]) -> None:
    found = equipped(name, options, balance_bias=0.05, expert_dropout=0.5)
    router = found.decoder.routers[0]
    assert router.noise is not None and router.noise.bias is not None
    router.noise.bias += 5.0 * torch.arange(len(router.noise.bias))
    run = run_of(tokens(6, 24), generator=torch.Generator().manual_seed(0))
    found.decoder(run)
    plan = run.traces[0].plan
    assert plan.scores is not None
    # A token that takes no more experts is idle, whether or not null experts are dropped.
    dropped = plan.scores[..., :8] <= DROPPED
    assert dropped.any() and not (plan.mask[..., :8] & dropped).any()


def test_a_loss_whose_labels_nobody_makes_is_refused_by_name() -> None:
    gate = find("mlp_gate")
    with pytest.raises(
        UserError, match=r"losses: utility is 1, but .* Set the option 'utility' of the row instead"
    ):
        check_loss_names({"utility": 1.0}, [gate.describe({})])
    check_loss_names({"utility": 0.5}, [gate.describe({}), gate.describe({"utility": 1.0})])
    check_loss_names({"utility": 0.0}, [gate.describe({})])


def weights_of(**losses: float) -> RouterTraining:
    return RouterTraining(losses=losses)


def test_standard_losses_are_weighed_by_name_and_a_routers_own_come_first() -> None:
    gate, adaptive, plain = (
        equipped(name).decoder.routers[0] for name in ("mlp_gate", "adaptive_moe", "hash")
    )
    terms = resolve_losses(gate, weights_of(router_z=0.5))
    assert {name: (term.weight, term.loss.compute) for name, term in terms.items()} == {
        "router_z": (0.5, router_z)
    }
    own = resolve_losses(adaptive, weights_of(load_balance=1.0, importance=0.1))
    assert own["load_balance"].loss is adaptive.aux_losses["load_balance"]
    assert set(own) == {"load_balance", "importance"}
    assert resolve_losses(gate, weights_of()) == {}
    assert resolve_losses(plain, weights_of(load_balance=1.0)) == {}
