"""Every choice of every option of every shipped router, trained and evaluated under the counter."""

import math
import typing
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch

from bench.config.recipe import TrainConfig
from bench.evaluation.calibrate import calibrate
from bench.evaluation.evaluate import evaluate
from bench.flops.meter import Meter
from bench.model.assemble import Model
from bench.routing.contract import TrainStatistics
from bench.routing.load_routers import load_all
from bench.training.loop import train
from bench.training.task import Allowance, TrainTask
from tests.world import CONFIG, SEQ_LEN, model, split, windows

DECODER = replace(CONFIG, num_layers=2)
RECIPE = TrainConfig(reference_tokens=1, batch_size=3)
SHIPPED = {name: entry.router for name, entry in load_all().items() if not entry.outside}
VALUES: dict[str, list[Any]] = {
    **{"num_experts": [4], "mean_experts": [1.5], "active_experts": [1.0], "segment": [6]},
    **{"initial_threshold": [0.3], "control_rate": [0.1], "balance": [0.0], "z_loss": [0.001]},
    **{"context": [2], "latent": [4], "alignment": [0.0], "probe_share": [0.5], "capacity": [0.25]},
    **{"width_ratio": [0.5], "utility": [0.1], "rank": [0.1], "rank_delta": [0.2]},
    **{"flip_fraction": [1.0], "expert_dropout": [0.0], "share": [1.0], "weight": [0.5]},
    **{"anneal": [0.5], "inner": ["jepa_gate", {"router": "mlp_gate"}], "heuristic": ["surprisal"]},
    **{"active": [3], "num_shared": [2], "granularity": [2], "max_experts": [4], "scale": [2.5]},
    **{"groups": [4], "groups_kept": [3], "entropy": [0.0], "momentum": [0.5]},
    **{"causal_weight": [1.0], "last": [0.3], "mode.mean_experts": [0.3], "mode.balance": [0.0]},
    **{"start": [1.0], "ratio": [2.0], "settled": [0.0]},
    "estimator_options": [{"temperature": (2.0, 0.5)}, {"dense": True}],
    "balance": [
        *("none", ["soft", "z", {"method": "sign_bias", "rate": 0.01}]),
        *({"method": "auxiliary", "scope": scope} for scope in ("sequence", "batch", "run")),
    ],
    **{"num_null": [5], "estimated_moe.balance": [0.0], "null_experts.balance": [0.0]},
    "quantile_balancing.balance": ["quantile", {"method": "quantile", "scope": "run"}],
}
"""Option -> values to try where its type does not list them; of one router alone with its name."""
WITH: dict[str, dict[str, Any]] = {
    "oracle": {"utility": 0.1},
    "flip_fraction": {"utility": 0.1},
    "rank_delta": {"rank": 0.1},
    "probe_share": {"targets": "probe"},
    "estimator_options": {"estimator": "st_gumbel"},
    "causal_weight": {"causal": "bce"},
    "attention_mod.causal_weight": {},
    "mode.layers": {"mode": "staged"},
    "random.layers": {"over": "block"},
    "random.inside": {"over": "block"},
    "groups": {"groups_kept": 2},
    "groups_kept": {"groups": 4},
}
"""Option -> others without which it does nothing."""


def choices(kind: Any, name: str, option: str) -> list[Any]:
    """All values of a choice, both of a switch, or those named above."""
    listed = [
        value
        for part in (kind, *typing.get_args(kind))
        if typing.get_origin(part) is Literal
        for value in typing.get_args(part)
    ]
    if kind is bool:
        return [True, False]
    return listed or VALUES.get(f"{name}.{option}") or VALUES[option]


CASES = [
    pytest.param(
        name,
        {**WITH.get(f"{name}.{option}", WITH.get(option, {})), option: value},
        id=f"{name} {option}={value}",
    )
    for name, router in SHIPPED.items()
    for option, kind in typing.get_type_hints(router.__init__).items()
    if option != "return"
    for value in choices(kind, name, option)
]


def train_twice(found: Model, dtype: torch.dtype = torch.float32, **options: Any) -> None:
    """Train for two steps."""
    pairs = torch.ones(CONFIG.vocab_size, CONFIG.vocab_size, dtype=torch.long)
    statistics = TrainStatistics(pairs.sum(0), pairs)
    allowance = Allowance(math.inf, 2 * RECIPE.batch_size * SEQ_LEN)
    task = TrainTask(split(), RECIPE, SEQ_LEN, 0, dtype=dtype, statistics=lambda: statistics)
    train(found, task, allowance, **options)


def live(found: Model) -> None:
    """Two steps and an evaluation, every router and loss under the counter."""
    meter = found.meter(0)
    train_twice(found, meter=meter)
    calibrate(found, windows(6), 1.0, decide=meter.decide)
    evaluate(found, windows(6), batch_size=3, decide=meter.decide)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_it_runs_under_the_counter_at_its_price(
    name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Meter, "due", lambda self, step: True)
    found = model(name, options, decoder=DECODER, routed_layers=(0, 1))
    prices = [site.router for site in (*found.ledger.sites, *found.evaluation_ledger.sites)]
    live(found)
    assert prices == [site.router for site in (*found.ledger.sites, *found.evaluation_ledger.sites)]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_it_trains_in_bfloat16(name: str, options: dict[str, Any]) -> None:
    found = model(name, options, decoder=DECODER, routed_layers=(0, 1))
    train_twice(found, torch.bfloat16)
    state = found.decoder.state_dict()
    assert [key for key, value in state.items() if not value.isfinite().all()] == []
