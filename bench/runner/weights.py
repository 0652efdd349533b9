"""Keep the trained weights of a cell with its record, and make its model again from both.

The folder `weights/<first two digits of the key>/<key>/` of a tree has the weights and buffers as
safetensors: knobs, balance biases and tables of routers included. The record of the same key has
the row, the suite and the seed, from which the model is built.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.backbone.decoder import Decoder
from bench.config.looks import without_impossible
from bench.config.read_suite import parse_suite
from bench.data import Corpus
from bench.errors import UserError, told
from bench.files import why
from bench.model.assemble import Model, assemble
from bench.ranks import from_first
from bench.record import Record
from bench.runner.cells import Cell
from bench.runner.plugins import describe_rows
from bench.runner.resolve import resolve
from bench.training.checkpoint import Foreign, read_state, write_state

WEIGHTS = "weights"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KeptModel:
    """A model with its kept weights.

    Attributes:
        model: the model, at the knobs of its evaluation.
        corpus: the text that it was trained on, with its tokenizer.
        remarks: conditions that have changed since the record was made.
    """

    model: Model
    corpus: Corpus
    remarks: tuple[str, ...]


def weights_path(store: Path, key: str) -> Path:
    """Return the folder for the weights of a cell in a tree."""
    return store / WEIGHTS / key[:2] / key


def keep_weights(decoder: Decoder, store: Path, key: str) -> None:
    """Keep the weights of a trained model, unless they are kept already.

    If the disk is full or read-only, a warning says so, and the record is written without them.
    """
    target = weights_path(store, key)
    if from_first(target.exists()):
        return
    try:
        write_state(target, key, decoder, {})
    except OSError as error:
        _log.warning("No weights in %s: %s. The record is kept.", target, why(error))


def recorded_cell(record: Record, given: Sequence[Path] = (), device: str | None = None) -> Cell:
    """Return the cell of a record, from the record alone.

    Args:
        record: the record.
        given: plugin files; those of its suite that still exist are loaded too.
        device: device to run on; None for the suite's own.
    """
    cell, row = record.cell, record.row
    config = without_impossible(record.provenance.config)
    config |= {"budget": cell.budget, "match": cell.match} | ({"device": device} if device else {})
    suite = parse_suite(config, f"record of {cell.row} seed {cell.seed}")
    named = [file for file in map(Path, suite.plugins) if file.exists()]
    plugins = tuple(dict.fromkeys([*named, *given]))
    # A shipped router needs no plugin files, and then it may run in this process.
    (card,) = describe_rows([row], plugins)
    return Cell(suite, row, cell.seed, plugins if card.outside else (), card.outside)


def load_model(
    record: Record, store: Path, plugins: Sequence[Path] = (), device: str | None = None
) -> KeptModel:
    """Build the model of a record and give it the kept weights.

    Args:
        record: record of the cell.
        store: tree with the weights.
        plugins: plugin files that define its router.
        device: device to run on; None for the suite's own.

    Raises:
        UserError: no weights are kept, or they are damaged or do not fit the model.
    """
    said = f"{record.cell.row} seed {record.cell.seed}"
    path = weights_path(store, record.key)
    again = "Run its cell with `bench run --keep-weights`."
    if not path.is_dir():
        raise UserError(f"No weights of {said} are kept in {str(path)!r}. {again}")
    cell = replace(recorded_cell(record, plugins, device), replica=0)
    resolved = resolve(cell)
    model = assemble(resolved.blueprint(), cell.seed, cell.row.router_seed)
    try:
        weights, _ = read_state(path, record.key)
        model.decoder.load_state_dict(weights)
    except (OSError, ValueError, KeyError, RuntimeError, Foreign) as error:
        # A router whose source has changed may have other parameters.
        raise UserError(
            f"The weights of {said} in {str(path)!r} cannot be used ({told(error)[:200]}). Delete "
            f"this folder. {again}"
        ) from None
    model.decoder.to(cell.suite.device).eval()
    model.decoder.truth = resolved.corpus.truth
    return KeptModel(model, resolved.corpus, _remarks(record, resolved.identity))


def _remarks(record: Record, identity: str) -> tuple[str, ...]:
    """Return a remark if the record has another router."""
    if identity == record.provenance.router_hash:
        return ()
    commit = record.provenance.commit[:12]
    return (f"the router {record.row.router!r} has changed since commit {commit}",)
