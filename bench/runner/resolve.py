"""Resolve a cell once: look up its router, read its text, and compute its content key."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.backbone.decoder import DecoderConfig
from bench.backbone.presets import decoder_config
from bench.config.base import hash_of
from bench.config.row import COMPARED
from bench.config.suite import SuiteConfig
from bench.data import Corpus, load_corpus
from bench.errors import UserError
from bench.model.blueprint import Blueprint
from bench.record import RULES_VERSION, CellId, record_path
from bench.routing.load_routers import find, load_file
from bench.routing.registry import Entry, RouterCard
from bench.runner.cells import Cell
from bench.runner.controls import control_of
from bench.runner.provenance import machine_of

NOT_NUMERICS = (
    *("purpose", "seeds", "rows", "comparison", "sensitivity", "thresholds", "budget", "match"),
    "plugins",
    *("name", "data"),
)
"""Fields of a suite that change nothing inside a cell, or that the key covers in another way.

The text, for example, is covered by its content.
"""


@dataclass(frozen=True)
class ResolvedCell:
    """A cell with everything that it refers to.

    Attributes:
        cell: the cell as it was asked for.
        entry: the registered router.
        card: facts about the router with the row's options.
        identity: hash of the router's numerics, or of its source if it is from outside.
        corpus: the text.
        machine: device class, threads, precision and versions.
        key: content key. Equal keys mean the same experiment under the same names.
        config_hash: hash of the configuration, without the text, that the cells of a board share.
    """

    cell: Cell
    entry: Entry
    card: RouterCard
    identity: str
    corpus: Corpus
    machine: dict[str, Any]
    key: str
    config_hash: str

    @property
    def dtype(self) -> torch.dtype:
        """Precision of matrix products."""
        return torch.bfloat16 if self.cell.suite.dtype == "bfloat16" else torch.float32

    @property
    def cell_id(self) -> CellId:
        """The identification of the cell in its record."""
        suite, row = self.cell.suite, self.cell.row
        return CellId(
            suite=suite.name,
            row=row.name,
            family=self.card.family,
            paper=self.card.paper,
            role=row.role,
            control=control_of(suite, row, self.card),
            site=self.card.paths.site.value,
            seed=self.cell.seed,
            match=suite.match,
            budget=suite.budget,
        )

    def place(self, root: Path) -> Path:
        """Return where the reference to its record lies in a tree."""
        further = self.cell.row.router_seed if self.cell.replica else None
        return record_path(root, self.cell_id, further)

    def blueprint(self) -> Blueprint:
        """Return the part of suite and row that defines the model.

        Raises:
            UserError: the backbone has no such layer.
        """
        suite = self.cell.suite
        config = decoder_of(suite, self.corpus.vocab_size)
        check_layers(suite, config)
        return Blueprint(
            entry=self.entry,
            options=self.cell.row.options,
            decoder=config,
            routed_layers=suite.routed_layers,
            seq_len=suite.seq_len,
            budget=suite.budget,
            num_domains=len(self.corpus.domains),
            bracket=self.cell.row.role == "bracket",
            training=self.cell.training,
            card=self.card,
        )


def decoder_of(suite: SuiteConfig, vocab_size: int) -> DecoderConfig:
    """Return the sizes of a suite's decoder."""
    return decoder_config(suite.backbone, vocab_size, suite.seq_len, suite.qk_gain)


def check_layers(suite: SuiteConfig, config: DecoderConfig) -> None:
    """Raise a `UserError` if a suite routes a layer that its backbone lacks."""
    if suite.routed_layers[-1] >= config.num_layers:
        raise UserError(
            f"routed_layers names layer {suite.routed_layers[-1]}; the backbone "
            f"{suite.backbone!r} has layers 0 to {config.num_layers - 1}. Name some of these."
        )


def resolve(cell: Cell, corpus: Corpus | None = None) -> ResolvedCell:
    """Look up the router of a cell, read its text and compute its key.

    Args:
        cell: the cell.
        corpus: its text, if it is loaded already.

    Raises:
        UserError: no such router or option, or text that cannot be read.
    """
    # Plugins register their routers when they are imported.
    for file in cell.plugin_files:
        load_file(file)
    entry = find(cell.row.router)
    card = entry.describe(cell.row.options)
    training = cell.training.model_dump(exclude_defaults=True)
    identity = entry.identity(cell.row.options, training)
    corpus = corpus or load_corpus(cell.data)
    machine = machine_of(torch.device(cell.suite.device), cell.suite.dtype)
    return ResolvedCell(
        cell=cell,
        entry=entry,
        card=card,
        identity=identity,
        corpus=corpus,
        machine=machine,
        key=content_key(cell, identity, data_identity(corpus), machine),
        config_hash=config_hash(cell),
    )


def numerics(cell: Cell) -> dict[str, Any]:
    """Return the part of the configuration that can change a number in the record."""
    canonical = cell.suite.canonical().items()
    # The canonical form leaves out fields at later defaults, so old records keep their keys.
    suite = {name: value for name, value in canonical if name not in NOT_NUMERICS}
    # Equal GPUs of a machine compute alike, and the key of a cell names their model.
    suite["device"] = cell.suite.device.partition(":")[0]
    row = {name: value for name, value in cell.row.canonical().items() if name not in COMPARED}
    conditions = {"budget": cell.suite.budget, "match": cell.match, "seed": cell.seed}
    return {"suite": suite, "name": cell.suite.name, "row": row, "cell": conditions}


def data_identity(corpus: Corpus) -> str:
    """Return the hash of a text in use: of its content and of the headline domains."""
    return hash_of([corpus.content_hash, list(corpus.headline_domains)])


def content_key(cell: Cell, identity: str, data: str, machine: dict[str, Any]) -> str:
    """Return the content key of a cell.

    Args:
        cell: the cell. The names of its suite and row are part of the key.
        identity: identity of the router (`Entry.identity`).
        data: hash of the text in use (`data_identity`).
        machine: device class, threads, precision and versions.
    """
    return hash_of([RULES_VERSION, numerics(cell), identity, data, machine])


def config_hash(cell: Cell) -> str:
    """Return the hash of the numeric configuration that the cells of a board share."""
    return hash_of([numerics(cell)["suite"], cell.suite.budget, cell.suite.match])
