"""Build small worlds for tests: suites and cells on random prose, and models on random tokens."""

import hashlib
import json
import math
import random
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import yaml
from torch import Tensor

from bench.backbone.decoder import Decoder, DecoderConfig
from bench.backbone.passes import Pass
from bench.config.read_suite import parse_suite
from bench.config.recipe import TrainConfig
from bench.config.row import RouterTraining
from bench.config.suite import SuiteConfig
from bench.data import Split, Windows
from bench.model.assemble import Model, assemble
from bench.model.blueprint import Blueprint
from bench.record import Record
from bench.rng import generator
from bench.routing.contract import Selection, TrainStatistics
from bench.routing.load_routers import find, load_all, registered
from bench.routing.registry import Entry
from bench.runner.cells import Cell
from bench.training.loop import train
from bench.training.pretrain import Pretrained, adopt
from bench.training.task import Allowance, Trained, TrainTask

SUITE = """
name: tiny
purpose: tests
backbone: tiny
routed_layers: [1, 2]
seq_len: 32
seeds: 2
data: {domain_column: kind, tokenizer: bytes}
train: {reference_tokens: 1024, batch_size: 4, probes: 2}
evaluation:
  {calibration_windows: 4, validation_windows: 4, probe_windows: 2, sweep: [1.0], tolerance: 0.2}
rows:
  - mlp_gate
  - mod
  - adaptive_moe
  - {name: random@ffn, role: control, options: {over: ffn}}
  - {name: random@experts-1, role: control, options: {over: experts, active_experts: 1}}
"""
CONFIG = DecoderConfig(
    vocab_size=50, d_model=32, num_layers=4, num_heads=2, ffn_width=64, cheap_rank=4, max_seq_len=32
)
SEQ_LEN, BATCH = 24, 4
ROWS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in load_all() if name != "random"),
    *(("random", {"over": over}) for over in ("ffn", "block", "experts")),
]
"""Every registered router; `random` over each kind of path."""
UNLEARNED = {"bracket", "control", "heuristic"}
LEARNED = [row for row in ROWS if find(row[0]).family not in UNLEARNED]
SHARED = {"cheap", "full", "skip", "block"}
FROZEN_ROWS = [row for row in ROWS if set(find(row[0]).make(row[1]).paths.names) <= SHARED]
"""Every registered router that can use a frozen backbone."""


EQUIPMENT: dict[str, Any] = {"noise": "gaussian", "balance_bias": 0.01, "expert_dropout": 0.2}
"""Options of router training that top-2 experts take all at once."""


@contextmanager
def own_registry() -> Generator[None]:
    """Forget outside the routers that are registered inside."""
    load_all()
    before = set(sys.modules)
    with patch.dict(registered):
        yield
    for name in {name for name in sys.modules if name.startswith("router_plugin_")} - before:
        del sys.modules[name]


def row_id(value: object) -> str:
    """Name a parametrised case."""
    if isinstance(value, Mapping):
        return "-".join(map(str, value.values()))
    return value if isinstance(value, str) else ""


def write_text(folder: Path) -> Path:
    """Write 80 documents in two domains, without 13-grams in common."""
    draw, path, lines = random.Random(7), folder / "text.jsonl", list[str]()
    for n in range(80):
        words = ["".join(draw.choices("abcdefgh", k=draw.randint(2, 7))) for _ in range(100)]
        lines.append(json.dumps({"text": " ".join(words), "kind": ("even", "odd")[n % 2]}))
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def suite_data(text: Path, **changes: Any) -> dict[str, Any]:
    """Return a suite as plain data; `changes` replace top-level fields."""
    data = yaml.safe_load(SUITE)
    data["data"]["path"] = str(text)
    return data | changes


def suite(text: Path, **changes: Any) -> SuiteConfig:
    """Return the suite, validated."""
    return parse_suite(suite_data(text, **changes), "tiny")


def cell(text: Path, router: str = "mlp_gate", seed: int = 0, **changes: Any) -> Cell:
    """Return one cell of the suite."""
    config = suite(text, **changes)
    return Cell(config, config.row(router), seed)


def write_suite(path: Path, text: Path, **changes: Any) -> Path:
    """Write the suite as a YAML file."""
    path.write_text(yaml.safe_dump(suite_data(text, **changes)), encoding="utf-8")
    return path


def without_clock(record: Record) -> dict[str, Any]:
    """Return a record without the parts from clock, process, command line and source tree."""
    data = record.model_dump(mode="json")
    clock: dict[str, dict[str, Any]] = {
        "provenance": {"started": "", "command": "", "commit": "", "dirty": False},
        "training": {"seconds": 0, "tokens_per_second": 0, "peak_memory_mb": 0},
        "speed": {"forward_us_per_token": 0, "repeats": 0, "beside": 0},
    }
    data |= {part: data[part] | values for part, values in clock.items() if data[part]}
    return data | {"curve": [point | {"seconds": 0} for point in data["curve"]]}


def digest(value: Any) -> str:
    """Hash nested dictionaries, lists, numbers and tensors, less anything called seconds."""
    if isinstance(value, Tensor):
        raw = value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        text = f"{value.dtype}{tuple(value.shape)}".encode() + raw
    elif isinstance(value, Mapping):
        parts = (f"{name}:{digest(part)};" for name, part in value.items() if name != "seconds")
        text = "".join(parts).encode()
    elif isinstance(value, list | tuple):
        text = "".join(map(digest, value)).encode()
    else:
        text = repr(value).encode()
    return hashlib.sha256(text).hexdigest()


def blueprint(
    router: str | Entry, options: Mapping[str, object] | None = None, **changes: Any
) -> Blueprint:
    """Return the blueprint of a router in layers 1 to 3 of 4; `changes` replace its fields."""
    entry = find(router) if isinstance(router, str) else router
    fields: dict[str, Any] = {
        "entry": entry,
        "options": options or {},
        "decoder": CONFIG,
        "routed_layers": (1, 2, 3),
        "seq_len": SEQ_LEN,
        "budget": 0.5,
        "num_domains": 3,
        "bracket": entry.family == "bracket",
    }
    return Blueprint(**(fields | changes))


def model(
    router: str | Entry,
    options: Mapping[str, object] | None = None,
    seed: int = 0,
    router_seed: int = 0,
    **changes: Any,
) -> Model:
    """Assemble the model of a router; the parity of a token is its right path."""
    made = assemble(blueprint(router, options, **changes), seed, router_seed)
    made.decoder.truth = lambda ids: ids % 2
    return made


def trained_like(decoder: Decoder, scale: float = 0.1) -> Decoder:
    """Add noise to every weight, so that weights that start at zero do something."""
    noise = generator(0, "trained_like")
    for parameter in decoder.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=noise), alpha=scale)
    return decoder


def backbone(seed: int = 0) -> Pretrained:
    """Return weights like those of a pretraining."""
    dense = trained_like(model("dense", seed=seed).decoder).named_parameters()
    return Pretrained({name.replace(".ffn.full.", ".ffn."): p.detach() for name, p in dense}, 1.0)


def frozen(name: str, options: Mapping[str, Any] | None = None) -> Model:
    """Return a model whose routers alone are trained."""
    found = model(name, options)
    adopt(found, backbone())
    return found


def tokens(batch: int = 3, seq_len: int = SEQ_LEN, seed: int = 0) -> Tensor:
    """Draw token ids, `[batch, seq_len]`."""
    return torch.randint(CONFIG.vocab_size, (batch, seq_len), generator=generator(seed, "tokens"))


def run_of(ids: Tensor, selection: Selection = "topk", **changes: Any) -> Pass:
    """Return a pass with noise of its own over token ids."""
    fields: dict[str, Any] = {"tags": torch.zeros_like(ids), "selection": selection}
    fields |= {"generator": generator(0, "routing"), "progress": 0.5}
    return Pass(ids, torch.arange(ids.shape[1]).expand(ids.shape), **(fields | changes))


def split(length: int = 4000, domains: int = 3, seed: int = 0) -> Split:
    """Draw text in documents of 100 tokens; each domain has tokens of its own."""
    draw, count, share = np.random.default_rng(seed), length // 100, CONFIG.vocab_size // domains
    tags = np.sort(np.arange(count) % domains)
    ids = (np.repeat(tags, 100) * share + draw.integers(0, share, count * 100)).astype(np.uint8)
    names = tuple(f"document{index}" for index in range(count))
    offsets = np.arange(0, count * 100 + 1, 100, dtype=np.int64)
    return Split(ids, offsets, tags.astype(np.uint8), names)


def windows(count: int = 12, seq_len: int = SEQ_LEN, domains: int = 3, seed: int = 1) -> Windows:
    """Draw random windows, as many of each domain."""
    ids = np.random.default_rng(seed).integers(0, CONFIG.vocab_size, (count, seq_len + 1))
    documents = np.tile(np.arange(count)[:, None], (1, seq_len + 1))
    return Windows(ids, np.sort(np.arange(count) % domains), documents)


def statistics(text: Split, vocab: int = CONFIG.vocab_size) -> TrainStatistics:
    """Count tokens and pairs of tokens."""
    ids = torch.from_numpy(text.tokens.astype(np.int64))
    pairs = torch.bincount(ids[:-1] * vocab + ids[1:], minlength=vocab * vocab)
    return TrainStatistics(torch.bincount(ids, minlength=vocab), pairs.view(vocab, vocab))


def fit(built: Model, steps: int, text: Split | None = None, **changes: Any) -> Trained:
    """Train for so many steps of `BATCH` sequences, at rates under which a lot is learnt.

    `changes` go to the recipe or the task if it has such a field, and else to `train`.
    """
    text = split() if text is None else text
    recipe: dict[str, Any] = {"reference_tokens": 1, "batch_size": BATCH, "probes": 2}
    recipe |= {"adam_lr": 0.05, "muon_lr": 0.05, "warmup": 0.0}
    recipe |= {name: changes.pop(name) for name in [*changes] if name in TrainConfig.model_fields}
    vocab, seq_len = built.decoder.config.vocab_size, changes.pop("seq_len", SEQ_LEN)
    terms: dict[str, Any] = {"seed": 0, "statistics": lambda: statistics(text, vocab)}
    known = {field.name for field in fields(TrainTask)}
    terms |= {name: changes.pop(name) for name in [*changes] if name in known}
    task = TrainTask(text, TrainConfig(**recipe), seq_len, **terms)
    return train(built, task, Allowance(math.inf, steps * BATCH * seq_len), **changes)


def equipped(
    router: str | Entry, options: Mapping[str, object] | None = None, **training: Any
) -> Model:
    """Assemble a model of one routed layer whose router is trained with options."""
    decoder = DecoderConfig(**(vars(CONFIG) | {"d_model": 16, "num_layers": 2, "cheap_rank": 2}))
    recipe = RouterTraining.model_validate(training)
    return model(router, options, decoder=decoder, routed_layers=(1,), budget=0.7, training=recipe)
