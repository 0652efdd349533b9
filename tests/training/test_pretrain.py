"""Pretraining against the ordinary training loop, and its cache under damage, death and company."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import bench.training.pretrain
from bench.backbone.decoder import Decoder
from bench.config.recipe import PretrainConfig, TrainConfig
from bench.data import Corpus
from bench.data.tokenizer import Tokenizer
from bench.errors import Diverged, UserError
from bench.flops.budget import StandIn
from bench.model.assemble import Model
from bench.rng import key
from bench.training.loop import train
from bench.training.pretrain import (
    Pretrained,
    Pretraining,
    _Loop,
    adopt,
    distillation,
    pretrained,
)
from bench.training.task import Allowance, TrainTask
from tests.world import (
    CONFIG,
    FROZEN_ROWS,
    SEQ_LEN,
    backbone,
    model,
    row_id,
    run_of,
    split,
    tokens,
    trained_like,
)

BATCH, STEPS = 4, 6
RECIPE = PretrainConfig(tokens=BATCH * SEQ_LEN * STEPS, batch_size=BATCH)
TASK = Pretraining(RECIPE, CONFIG, (1, 2, 3), SEQ_LEN, 0, {"device": "cpu"})


class Killed(BaseException):
    """Stands for a signal."""


def corpus(content: str = "text") -> Corpus:
    part = split()
    tokenizer = Tokenizer(
        (*(bytes([n]) for n in range(CONFIG.vocab_size - 1)), b""),
        lambda texts: [np.zeros(0, np.uint8) for _ in texts],
    )
    return Corpus(("a", "b", "c"), ("a",), {}, part, part, part, content, tokenizer)


def get(cache: Path, task: Pretraining = TASK, **options: Any) -> Pretrained:
    return pretrained(task, corpus(), cache, **options)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(weight, other[name]) for name, weight in one.items()
    )


def cheap(found: Pretrained) -> dict[str, Tensor]:
    return {name: weight for name, weight in found.weights.items() if ".cheap." in name}


def rest(found: Pretrained) -> dict[str, Tensor]:
    return {name: weight for name, weight in found.weights.items() if ".cheap." not in name}


def test_the_backbone_is_what_the_ordinary_loop_makes_of_the_dense_model(tmp_path: Path) -> None:
    found = get(tmp_path)
    dense: Model = model("dense")
    recipe = TrainConfig(
        reference_tokens=1,
        batch_size=BATCH,
        muon_lr=RECIPE.muon_lr,
        adam_lr=RECIPE.adam_lr,
        warmup=RECIPE.warmup,
        decay=RECIPE.decay,
    )
    task = TrainTask(split(), recipe, SEQ_LEN, seed=key(0, "pretraining"))
    train(dense, task, Allowance(float("inf"), RECIPE.tokens))
    ordinary = {
        name.replace(".ffn.full.", ".ffn."): p
        for name, p in dense.decoder.named_parameters()
        if ".cheap." not in name
    }
    assert same(rest(found), ordinary)
    assert found.flops > dense.ledger.total


@pytest.mark.parametrize("qk_gain", [False, True])
def test_every_parameter_has_one_optimiser(qk_gain: bool) -> None:
    config = replace(CONFIG, qk_gain=qk_gain)
    decoder = Decoder(config, {layer: [StandIn()] for layer in (1, 2)})
    trained = Counter(
        id(p)
        for optimiser in _Loop(decoder, RECIPE).optimisers
        for group in optimiser.param_groups
        for p in group["params"]
    )
    assert trained == dict.fromkeys(map(id, decoder.parameters()), 1)
    assert qk_gain == any("gain" in name for name, _ in decoder.named_parameters())


def test_distillation_moves_nothing_but_the_cheap_paths(tmp_path: Path) -> None:
    one, other = (
        get(tmp_path, replace(TASK, config=RECIPE.model_copy(update={"cheap_lr": rate})))
        for rate in (0.02, 0.1)
    )
    assert same(rest(one), rest(other))
    assert not any(torch.equal(weight, cheap(other)[name]) for name, weight in cheap(one).items())


def test_distillation_is_the_squared_error_with_a_gradient_in_cheap_paths_alone() -> None:
    decoder = trained_like(model("dense").decoder)
    run = run_of(tokens())
    decoder(run)
    found = distillation(decoder, run.traces)
    found.backward()
    touched = {name for name, p in decoder.named_parameters() if p.grad is not None}
    assert touched == {
        f"layers.{layer}.ffn.cheap.{part}" for layer in (1, 2, 3) for part in ("down", "up")
    }
    expected = 0.0
    for trace in run.traces:
        paths, x = decoder.layers[trace.layer].ffn, trace.inputs.hidden.detach()
        errors = (x @ paths.cheap.down.T @ paths.cheap.up.T - paths.full(x)).square()
        expected += sum(errors.flatten().tolist()) / errors.numel()
    assert float(found.detach()) == pytest.approx(expected, rel=1e-5)


def test_the_cheap_path_comes_near_the_best_of_its_rank(tmp_path: Path) -> None:
    """Against reduced-rank regression on the same inputs, in closed form.

    Half of the explained variance is enough for so short a training.
    """
    long = RECIPE.model_copy(update={"tokens": BATCH * SEQ_LEN * 150})
    dense = model("dense")
    adopt(dense, get(tmp_path, replace(TASK, config=long)))
    run = run_of(
        torch.from_numpy(split().tokens[: 40 * SEQ_LEN].astype(np.int64)).view(40, SEQ_LEN)
    )
    with torch.no_grad():
        dense.decoder(run)
        for trace in run.traces:
            paths = dense.decoder.layers[trace.layer].ffn
            x = trace.inputs.hidden.flatten(0, 1).double()
            y = paths.full(x.float()).double()
            fitted = x @ torch.linalg.lstsq(x, y).solution
            values = torch.linalg.svdvals(fitted)
            best = (y - fitted).square().sum() + values[CONFIG.cheap_rank :].square().sum()
            error = (y - paths.cheap(x.float())).square().sum()
            assert best <= error
            assert y.square().sum() - error >= 0.5 * (y.square().sum() - best)


def test_the_second_to_ask_gets_the_same_bits_without_training(tmp_path: Path) -> None:
    seen: list[float] = []
    first = get(tmp_path, report=lambda share, _: seen.append(share))
    assert seen[-1] == 1.0
    seen.clear()
    second = get(tmp_path, report=lambda share, _: seen.append(share))
    assert not seen
    assert same(first.weights, second.weights)
    assert first.flops == second.flops
    assert same(get(tmp_path / "elsewhere").weights, first.weights)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"config": RECIPE.model_copy(update={"muon_lr": 0.01})},
        {"machine": {"device": "other"}},
        {"routed_layers": (1,)},
    ],
)
def test_another_task_is_another_file(change: dict[str, Any]) -> None:
    assert replace(TASK, **change).key("text") != TASK.key("text")
    assert TASK.key("text") != TASK.key("other text")


def test_a_damaged_file_is_set_aside_and_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = get(tmp_path)
    (file,) = (tmp_path / "pretrained").glob("*.safetensors")
    whole = file.read_bytes()
    for damaged in (whole[:-5], whole[:-5] + b"wrong", b"", b"no safetensors"):
        file.write_bytes(damaged)
        caplog.clear()
        assert same(get(tmp_path).weights, first.weights)
        assert "damaged" in caplog.text
        assert file.with_name(f"damaged-{file.name}").read_bytes() == damaged


def test_a_pretraining_that_was_killed_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.training.pretrain, "BACKBONE_CHECKPOINT_SECONDS", 0)
    whole = get(tmp_path / "whole")

    def die(share: float, _: float) -> None:
        if share > 0.6:
            raise Killed

    with pytest.raises(Killed):
        get(tmp_path / "killed", report=die)
    seen: list[float] = []
    again = get(tmp_path / "killed", report=lambda share, _: seen.append(share))
    assert seen[0] > 0.5
    assert same(again.weights, whole.weights)
    assert [
        file.suffix
        for file in (tmp_path / "killed" / "pretrained").iterdir()
        if file.suffix != ".lock"
    ] == [".safetensors"]


def test_of_several_at_once_one_trains(tmp_path: Path) -> None:
    seen: list[float] = []
    with ThreadPoolExecutor(3) as pool:
        found = list(
            pool.map(lambda _: get(tmp_path, report=lambda share, _: seen.append(share)), range(3))
        )
    assert sum(share == 1.0 for share in seen) == 1
    assert same(found[0].weights, found[1].weights)
    assert same(found[0].weights, found[2].weights)


def test_what_diverges_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.training.pretrain, "trapezoid", lambda *_: torch.nan)
    with pytest.raises(Diverged, match="not finite"):
        get(tmp_path)
    assert not list((tmp_path / "pretrained").glob("*.safetensors"))


def test_a_cache_that_cannot_be_written_is_a_one_line_error(tmp_path: Path) -> None:
    (tmp_path / "pretrained").write_text("in the way")
    with pytest.raises(UserError, match="TOKEN_ROUTING_BENCH_CACHE"):
        get(tmp_path)


@pytest.mark.parametrize(("name", "options"), FROZEN_ROWS, ids=row_id)
def test_every_router_gets_the_same_backbone_and_keeps_its_own_weights(
    name: str, options: dict[str, Any]
) -> None:
    found, before = model(name, options), model(name, options)
    adopt(found, backbone())
    routers = {id(p) for router in found.decoder.routers for p in router.parameters()}
    given = backbone().weights
    for (full_name, weight), (_, old) in zip(
        found.decoder.named_parameters(), before.decoder.named_parameters(), strict=True
    ):
        mine = id(weight) in routers
        assert weight.requires_grad == mine
        assert torch.equal(
            weight, old if mine else given[full_name.replace(".ffn.full.", ".ffn.")]
        ), full_name


def test_experts_have_no_pretrained_weights() -> None:
    with pytest.raises(UserError, match=r"no weights for layers\.1\.ffn\.bank"):
        adopt(model("top2_moe"), backbone())
