"""Small things to run: cells of about a second on random prose, and a model on random tokens
without any corpus.
"""

import hashlib
import json
import random
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import yaml
from torch import Tensor

import bench.routing.registry
from bench.backbone.decoder import DecoderConfig
from bench.config.load import parse_suite
from bench.config.suite import RouterTraining, SuiteConfig, TrainConfig
from bench.data import Split, Windows
from bench.data import windows as cut_windows
from bench.model.assemble import Blueprint, Model, assemble
from bench.record import Record
from bench.routing.contract import TrainStatistics
from bench.routing.registry import Entry, load_all
from bench.runner.cells import Cell
from bench.training.checkpoint import Checkpoints
from bench.training.loop import Allowance, Probe, train
from bench.training.step import Trained

VOCAB, SEQ_LEN, NUM_DOMAINS = 64, 16, 2
RECIPE = TrainConfig(
    reference_tokens=1, batch_size=4, probes=2, adam_lr=0.05, muon_lr=0.05, warmup=0.0
)


@contextmanager
def own_registry() -> Generator[None]:
    """Whatever is registered inside is forgotten outside."""
    load_all()
    with patch.dict(bench.routing.registry._entries):
        yield


def write_text(folder: Path) -> Path:
    """80 documents in two domains, without 13-grams in common."""
    draw = random.Random(7)
    prose = [
        " ".join("".join(draw.choices("abcdefgh", k=draw.randint(2, 7))) for _ in range(100))
        for _ in range(80)
    ]
    path = folder / "text.jsonl"
    path.write_text(
        "\n".join(
            json.dumps({"text": text, "kind": ("even", "odd")[n % 2]})
            for n, text in enumerate(prose)
        ),
        encoding="utf-8",
    )
    return path


def suite_data(text: Path, **changes: Any) -> dict[str, Any]:
    """Plain data of a suite, as YAML would give them; `changes` replace top-level fields."""
    data: dict[str, Any] = {
        "name": "tiny",
        "purpose": "tests",
        "backbone": "tiny",
        "routed_layers": [1, 2],
        "seq_len": 32,
        "seeds": 2,
        "data": {"path": str(text), "domain_column": "kind", "tokenizer": "bytes"},
        "train": {"reference_tokens": 1024, "batch_size": 4, "probes": 2},
        "evaluation": {
            "calibration_windows": 4,
            "validation_windows": 4,
            "probe_windows": 2,
            "sweep": [1.0],
            "tolerance": 0.2,
        },
        "rows": [
            "mlp_gate",
            "mod",
            "adaptive_moe",
            {"name": "random@ffn", "role": "control", "options": {"over": "ffn"}},
        ],
    }
    return data | changes


def suite(text: Path, **changes: Any) -> SuiteConfig:
    """The suite, validated."""
    return parse_suite(suite_data(text, **changes), "tiny")


def cell(text: Path, router: str = "mlp_gate", seed: int = 0, **changes: Any) -> Cell:
    """One cell of the suite."""
    config = suite(text, **changes)
    return Cell(config, config.row(router), seed)


def write_suite(path: Path, text: Path, **changes: Any) -> Path:
    """The suite as a YAML file."""
    path.write_text(yaml.safe_dump(suite_data(text, **changes)), encoding="utf-8")
    return path


def without_clock(record: Record) -> dict[str, Any]:
    """A record less what the clock, the process, the command line and the state of the source tree
    put in.
    """
    data = record.model_dump(mode="json")
    data["provenance"] |= {"started": "", "command": "", "commit": "", "dirty": False}
    if data["training"]:
        data["training"] |= {"seconds": 0, "tokens_per_second": 0, "peak_memory_mb": 0}
    if data["speed"]:
        data["speed"] |= {"forward_us_per_token": 0, "repeats": 0}
    data["curve"] = [point | {"seconds": 0} for point in data["curve"]]
    return data


def digest(value: Any) -> str:
    """SHA-256 of nested dictionaries, lists, numbers and tensors, less anything called seconds."""
    if isinstance(value, Tensor):
        text = (
            f"{value.dtype}{tuple(value.shape)}".encode()
            + value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        )
    elif isinstance(value, Mapping):
        text = "".join(
            f"{name}:{digest(part)};" for name, part in value.items() if name != "seconds"
        ).encode()
    elif isinstance(value, list | tuple):
        text = "".join(map(digest, value)).encode()
    else:
        text = repr(value).encode()
    return hashlib.sha256(text).hexdigest()


def model(
    entry: Entry,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    training: RouterTraining | None = None,
) -> Model:
    """A four-layer model of width 16 with the router in layers 1 to 3."""
    decoder = DecoderConfig(
        vocab_size=VOCAB,
        d_model=16,
        num_layers=4,
        num_heads=2,
        ffn_width=64,
        cheap_rank=2,
        max_seq_len=SEQ_LEN,
    )
    layers = (1, 2, 3)
    bracket = entry.family == "bracket"
    plan = Blueprint(
        entry,
        options or {},
        decoder,
        layers,
        SEQ_LEN,
        0.5,
        NUM_DOMAINS,
        bracket,
        training or RouterTraining(),
    )
    made = assemble(plan, seed)
    made.decoder.truth = lambda ids: ids % 2
    return made


def split() -> Split:
    """Two documents in two domains, of tokens that follow each other by a rule with noise."""
    draw = np.random.Generator(np.random.PCG64(1))
    steps = draw.integers(1, 4, size=4096)
    tokens = (steps.cumsum() % VOCAB).astype(np.uint8)
    return Split(tokens, np.array([0, 2048, 4096]), np.array([0, 1], np.uint8), ("a", "b"))


def statistics() -> TrainStatistics:
    """Counts over the split."""
    tokens = torch.from_numpy(split().tokens.astype(np.int64))
    pairs = torch.bincount(tokens[:-1] * VOCAB + tokens[1:], minlength=VOCAB * VOCAB).view(
        VOCAB, VOCAB
    )
    return TrainStatistics(torch.bincount(tokens, minlength=VOCAB), pairs)


def train_steps(
    built: Model,
    steps: int,
    probe: Probe | None = None,
    checkpoints: Checkpoints | None = None,
    recipe: TrainConfig = RECIPE,
) -> Trained:
    """Train for a number of steps on the split."""
    allowance = Allowance(float("inf"), steps * RECIPE.batch_size * SEQ_LEN)
    return train(
        built,
        split(),
        recipe,
        allowance,
        seq_len=SEQ_LEN,
        seed=0,
        statistics=statistics,
        probe=probe,
        checkpoints=checkpoints,
    )


def windows() -> Windows:
    """Eight windows of the split, four a domain."""
    return cut_windows(split(), seq_len=SEQ_LEN, per_domain=4)
