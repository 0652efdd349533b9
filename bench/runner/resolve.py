"""What a cell comes to, found once: its router, losses, text and content key."""

from dataclasses import dataclass
from typing import Any

import torch

from bench.backbone.decoder import DecoderConfig
from bench.backbone.presets import decoder_config
from bench.config.base import hash_of
from bench.config.suite import SuiteConfig
from bench.data import Corpus, load_corpus
from bench.errors import UserError
from bench.model.assemble import Blueprint
from bench.record import RULES_VERSION, CellId
from bench.routing.registry import Entry, RouterCard, find, load_file
from bench.runner.cells import Cell
from bench.runner.controls import control_of
from bench.runner.provenance import machine_of

NOT_NUMERICS = (
    *("purpose", "seeds", "rows", "comparison", "sensitivity", "thresholds", "budget", "match"),
    "plugins",
    *("name", "data"),
)
"""Fields of a suite that change nothing inside a cell, or that the key covers otherwise.

The text is covered by its content, wherever it lies.
"""


@dataclass(frozen=True)
class ResolvedCell:
    """A cell with all that it stands for.

    Attributes:
        cell: as it was asked for.
        entry: the registered router.
        card: what is known of the router with the row's options.
        identity: hash of the router's numerics, or of its source where it is from outside.
        corpus: the text.
        machine: device class, threads, precision and versions.
        key: content key: same key, same experiment under the same names.
        config_hash: of everything that the cells of a board must share, beside the text.
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
        """What a record says about which cell it is."""
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

    def blueprint(self) -> Blueprint:
        """Return what suite and row say about the model.

        Raises:
            UserError: the backbone has no such layer.
        """
        suite = self.cell.suite
        config = decoder_config(suite.backbone, self.corpus.vocab_size, suite.seq_len)
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


def check_layers(suite: SuiteConfig, config: DecoderConfig) -> None:
    """Raise a `UserError` if a suite routes a layer that its backbone lacks."""
    if suite.routed_layers[-1] >= config.num_layers:
        raise UserError(
            f"routed_layers names layer {suite.routed_layers[-1]}; the backbone "
            f"{suite.backbone!r} has layers 0 to {config.num_layers - 1}. Name some of these."
        )


def resolve(cell: Cell) -> ResolvedCell:
    """Look up the router of a cell, read its text and compute its key.

    Raises:
        UserError: no such router or option, or text that cannot be read.
    """
    for file in cell.plugin_files:
        load_file(file)
    entry = find(cell.row.router)
    card = entry.describe(cell.row.options)
    training = cell.training.model_dump(exclude_defaults=True)
    identity = entry.identity(cell.row.options, training)
    corpus = load_corpus(cell.data)
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
    """Return all of the configuration that can change a number in the record."""
    canonical = cell.suite.canonical().items()
    suite = {name: value for name, value in canonical if name not in NOT_NUMERICS}
    # whom a row is compared with changes nothing in it
    compared = ("control", "twin_of")
    row = {name: value for name, value in cell.row.canonical().items() if name not in compared}
    conditions = {"budget": cell.suite.budget, "match": cell.match, "seed": cell.seed}
    return {"suite": suite, "name": cell.suite.name, "row": row, "cell": conditions}


def data_identity(corpus: Corpus) -> str:
    """Return the hash of a text as it is used: its content, and the domains of the headline."""
    return hash_of([corpus.content_hash, list(corpus.headline_domains)])


def content_key(cell: Cell, identity: str, data: str, machine: dict[str, Any]) -> str:
    """Return the content key of a cell.

    Args:
        cell: the cell; the names of its suite and row are part of the key.
        identity: of the router (`Entry.identity`).
        data: hash of the text as it is used (`data_identity`).
        machine: device class, threads, dtype and the versions that matter.
    """
    return hash_of([RULES_VERSION, numerics(cell), identity, data, machine])


def config_hash(cell: Cell) -> str:
    """Return the hash of everything numeric that the cells of a board share: not row and seed."""
    return hash_of([numerics(cell)["suite"], cell.suite.budget, cell.suite.match])
