"""Put a router under examination: in a small decoder on synthetic text.

Budget, ledger and training loop are the real ones.
"""

import sys
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.backbone.decoder import DecoderConfig
from bench.backbone.passes import Pass, make_pass
from bench.config.recipe import TrainConfig
from bench.conformance.causality_proof import prove
from bench.conformance.life import Life, live
from bench.conformance.text import counts_of, ruled_text, windows_of
from bench.data import Split, Windows
from bench.evaluation.calibrate import calibrate
from bench.evaluation.evaluate import evaluate
from bench.evaluation.headline import Visited, knobs_of
from bench.model.assemble import Model, assemble
from bench.model.blueprint import Blueprint, layers_used
from bench.model.build_routers import router_spec
from bench.record import Causality
from bench.rng import generator
from bench.routing.contract import (
    LayerTrace,
    Router,
    RouterInput,
    Selection,
    TrainStatistics,
)
from bench.routing.fingerprint import own_modules
from bench.routing.inner_router import inside_of
from bench.routing.registry import Entry
from bench.training.loop import train
from bench.training.task import Allowance, TrainTask

DECODER = DecoderConfig(
    vocab_size=64,
    d_model=32,
    num_layers=3,
    num_heads=2,
    ffn_width=128,
    cheap_rank=2,
    max_seq_len=48,
)
SEQ_LEN = 32
BATCH_SIZE = 8
NUM_DOMAINS = 4
TRAIN_STEPS = 20
SHORT_LIFE = 5
"""Steps of training, enough for a beginning, a middle and an end."""
RECIPE = TrainConfig(reference_tokens=1, batch_size=BATCH_SIZE)
SELECTIONS: tuple[Selection, ...] = ("topk", "causal")


@dataclass
class Subject:
    """One router under examination. Models are built once and shared by the checks.

    Attributes:
        entry: the registered router.
        options: options of the router.
        seed: seed of weights, text and noise. Another seed repeats every check on other data.
    """

    entry: Entry
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    seed: int = 0

    @property
    def blueprint(self) -> Blueprint:
        """The model under examination. Brackets ignore the budget on purpose."""
        return Blueprint(
            entry=self.entry,
            options=self.options,
            decoder=DECODER,
            # A suite that routes layer 0 refuses a block by received attention, of a layer before.
            routed_layers=tuple(range("received" in self.probe.needs, DECODER.num_layers)),
            seq_len=SEQ_LEN,
            budget=0.5,
            num_domains=NUM_DOMAINS,
            bracket=self.is_bracket,
        )

    @property
    def is_bracket(self) -> bool:
        """Whether the router is a bracket, which the board does not rank."""
        return self.entry.family == "bracket"

    def make(self) -> Router:
        """Return an unbuilt instance."""
        return self.entry.make(dict(self.options))

    def assemble(self) -> Model:
        """Return a fresh model of this seed, with known right paths."""
        model = assemble(self.blueprint, self.seed)
        model.decoder.truth = self.right_paths
        return model

    def right_paths(self, tokens: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return a right path for each token, a function of its id, -1 for a few ids."""
        return np.where(tokens % 8 == 0, -1, tokens % len(self.probe.paths.names)).astype(np.int64)

    @cached_property
    def probe(self) -> Router:
        """An unbuilt instance, for reading the declarations of the class."""
        return self.make()

    @cached_property
    def model(self) -> Model:
        """An untrained model, which no check may change."""
        return self.assemble()

    @cached_property
    def trained(self) -> Model:
        """A model after a short training, calibrated to the budget. No check may change it."""
        model = self.assemble()
        self.train(model)
        calibrate(model, self.windows(48), 1.0)
        return model

    def train(
        self,
        model: Model,
        steps: int = TRAIN_STEPS,
        seed: int | None = None,
        fit: bool = True,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Train for a number of steps with the real loop."""
        # A budget in tokens gives an exact number of steps for any router.
        allowance = Allowance(float("inf"), steps * BATCH_SIZE * SEQ_LEN)
        seed = self.seed if seed is None else seed
        statistics = self.statistics if fit else None
        task = TrainTask(self.split, RECIPE, SEQ_LEN, seed, dtype=dtype, statistics=statistics)
        # A check may ask for the trained model while gradients are off.
        with torch.enable_grad():
            train(model, task, allowance)

    @cached_property
    def life(self) -> Life:
        """Observations of a model that is built, trained, calibrated and evaluated once."""

        def run(model: Model) -> None:
            self.train(model, steps=SHORT_LIFE)
            windows = self.windows(8, "life")
            calibrate(model, windows, 1.0)
            evaluate(model, windows, batch_size=4)

        return live(self.assemble, run)

    def build(self, layer: int | None = None, **changes: Any) -> Router:
        """Build a router outside any model, from a generator keyed by the seed.

        Args:
            layer: layer of the router; by default the first layer in use.
            changes: fields of its spec to replace.
        """
        return self.build_layer(layer, **changes)[-1]

    def build_layer(self, layer: int | None = None, **changes: Any) -> list[Router]:
        """Build the routers of a layer outside any model, one or, inside a block, two.

        Args:
            layer: by default the first of those in use.
            changes: of their specs.
        """
        used = layers_used(self.probe, self.blueprint.routed_layers)
        layer = used[0] if layer is None else layer
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            outer = self.make()
            inner = inside_of(outer, self.entry.name)
            made = [outer] if inner is None else [outer, inner]
            for router in made:
                spec = router_spec(self.blueprint, router, layer, used, None, self.seed)
                router.build(replace(spec, **changes))
        return made[::-1]

    @cached_property
    def sources(self) -> frozenset[str]:
        """The source files that define the router."""
        files = (
            getattr(sys.modules.get(name), "__file__", None)
            for name in own_modules(self.entry.router)
        )
        return frozenset(file for file in files if file)

    @cached_property
    def split(self) -> Split:
        """Text with structure to learn."""
        return ruled_text(self.seed, DECODER.vocab_size, NUM_DOMAINS)

    def statistics(self) -> TrainStatistics:
        """Count the tokens of the text."""
        return counts_of(self.split, DECODER.vocab_size)

    def windows(self, count: int, stream: str = "windows") -> Windows:
        """Return windows for evaluation, domains in turn, from a named stream of random places."""
        return windows_of(self.split, count, SEQ_LEN, generator(self.seed, stream))

    def batch(
        self, size: int, stream: str = "batch", seq_len: int = SEQ_LEN
    ) -> tuple[Tensor, Tensor]:
        """Return random tokens and tags `[size, seq_len]`.

        Tags change within a sequence, as they may in text.
        """
        noise = generator(self.seed, stream)
        shape = (size, seq_len)
        return torch.randint(DECODER.vocab_size, shape, generator=noise), torch.randint(
            NUM_DOMAINS, shape, generator=noise
        )

    @cached_property
    def proof(self) -> Causality:
        """The proof of causality of the trained model, as in an official evaluation."""
        windows = self.windows(48, "validation")
        decoder, size = self.trained.decoder, 64
        visited = [Visited(knobs_of(decoder), evaluate(self.trained, windows, size).nats)]
        return prove(decoder, windows, visited, self.seed, size, torch.float32)

    def run(
        self, model: Model, tokens: Tensor, tags: Tensor, selection: Selection, **options: Any
    ) -> tuple[Tensor, list[LayerTrace]]:
        """Run a forward pass, and return its logits and traces."""
        noise = generator(self.seed, "noise") if selection == "topk" else None
        run: Pass = make_pass(tokens, tags, selection=selection, generator=noise, **options)
        logits = model.decoder(run)
        return logits, run.traces

    def inputs(
        self, selection: Selection, size: int = BATCH_SIZE, model: Model | None = None
    ) -> list[RouterInput]:
        """Return the inputs of each router of a model in one pass."""
        with torch.no_grad():
            traces = self.run(model or self.model, *self.batch(size), selection)[1]
        return [trace.inputs for trace in traces]

    def fresh(self, inputs: RouterInput) -> RouterInput:
        """Return the same inputs with a new generator, at the start of its noise."""
        return (
            inputs
            if inputs.generator is None
            else replace(inputs, generator=generator(self.seed, "noise"))
        )
