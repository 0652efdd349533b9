"""A decoder of a few thousand parameters, every registered router in it, and random text, for tests
of the core.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.backbone.decoder import Decoder, DecoderConfig
from bench.backbone.passes import Decide, Pass, ask
from bench.data import Split, Windows
from bench.model.assemble import Blueprint, Model, assemble
from bench.rng import generator
from bench.routing.contract import Router, RouterInput, RoutingPlan, Selection
from bench.routing.registry import find, load_all

CONFIG = DecoderConfig(
    vocab_size=50, d_model=32, num_layers=4, num_heads=2, ffn_width=64, cheap_rank=4, max_seq_len=32
)
SEQ_LEN = 24
BRACKETS = ("dense", "cheap", "dense_parameters")
ROWS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in load_all() if name != "random"),
    *(("random", {"over": over}) for over in ("ffn", "block", "experts")),
]
"""Every registered router; `random` over each kind of path."""
UNLEARNED = ("bracket", "control", "heuristic")
LEARNED = [(name, options) for name, options in ROWS if find(name).family not in UNLEARNED]


def row_id(value: object) -> str:
    """Name of a parametrised case."""
    return (
        value
        if isinstance(value, str)
        else "-".join(map(str, value.values()))
        if isinstance(value, Mapping)
        else ""
    )


def blueprint(name: str, options: Mapping[str, object] | None = None, **changes: Any) -> Blueprint:
    """Blueprint of a router in the small decoder; `changes` replace its fields."""
    fields: dict[str, Any] = {
        "entry": find(name),
        "options": options or {},
        "decoder": CONFIG,
        "routed_layers": (1, 2, 3),
        "seq_len": SEQ_LEN,
        "budget": 0.5,
        "num_domains": 3,
        "bracket": name in BRACKETS,
    }
    return Blueprint(**(fields | changes))


def model(
    name: str,
    options: Mapping[str, object] | None = None,
    seed: int = 0,
    router_seed: int = 0,
    **changes: Any,
) -> Model:
    """The assembled model of a router; the parity of a token is its right path."""
    made = assemble(blueprint(name, options, **changes), seed, router_seed)
    made.decoder.truth = lambda ids: ids % 2
    return made


def trained_like(decoder: Decoder, scale: float = 0.1) -> Decoder:
    """Add noise to every weight, so that what starts at zero does something."""
    noise = generator(0, "trained_like")
    for parameter in decoder.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=noise), alpha=scale)
    return decoder


def tokens(batch: int = 3, seq_len: int = SEQ_LEN, seed: int = 0) -> Tensor:
    """Random token ids."""
    return torch.randint(CONFIG.vocab_size, (batch, seq_len), generator=generator(seed, "tokens"))


def run_of(ids: Tensor, selection: Selection = "topk", **changes: Any) -> Pass:
    """A pass with noise of its own over token ids."""
    positions = torch.arange(ids.shape[1]).expand(ids.shape)
    fields: dict[str, Any] = {
        "tags": torch.zeros_like(ids),
        "selection": selection,
        "generator": generator(0, "routing"),
        "progress": 0.5,
    }
    return Pass(ids, positions, **(fields | changes))


class Recorder:
    """Keeps the plans of one pass, and hands their choices out again in another."""

    def __init__(self) -> None:
        self.plans: list[RoutingPlan] = []

    def record(self, router: Router, inputs: RouterInput) -> RoutingPlan:
        """Ask the router and remember."""
        self.plans.append(ask(router, inputs))
        return self.plans[-1]

    @property
    def replay(self) -> Decide:
        """The same choices in the same order, with weights asked for anew, so that gradients reach
        the router.
        """
        plans = iter(self.plans)

        def decide(router: Router, inputs: RouterInput) -> RoutingPlan:
            before, now = next(plans), ask(router, inputs)
            return replace(now, mask=before.mask, counts=before.counts)

        return decide


def split(length: int = 4000, domains: int = 3, seed: int = 0) -> Split:
    """Random text in documents of 100 tokens.

    Each domain prefers tokens of its own, so that there is something to learn.
    """
    draw = np.random.default_rng(seed)
    documents = length // 100
    tags = np.sort(np.arange(documents) % domains)
    low = np.repeat(tags, 100) * (CONFIG.vocab_size // domains)
    ids = (low + draw.integers(0, CONFIG.vocab_size // domains, documents * 100)).astype(np.uint8)
    names = tuple(f"document{index}" for index in range(documents))
    return Split(
        ids, np.arange(0, documents * 100 + 1, 100, dtype=np.int64), tags.astype(np.uint8), names
    )


def windows(count: int = 12, seq_len: int = SEQ_LEN, domains: int = 3, seed: int = 1) -> Windows:
    """Random windows, as many of each domain."""
    draw = np.random.default_rng(seed)
    ids = draw.integers(0, CONFIG.vocab_size, (count, seq_len + 1))
    return Windows(
        ids,
        np.sort(np.arange(count) % domains),
        np.tile(np.arange(count)[:, None], (1, seq_len + 1)),
    )
