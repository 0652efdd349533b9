"""Run one cell from data to record."""

import datetime
import resource
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from bench.assemble import Blueprint, Model, assemble
from bench.backbone.presets import decoder_config
from bench.causality import prove
from bench.checkpoint import Checkpoints
from bench.contract import TrainStatistics
from bench.data import Corpus, Windows, load_corpus, statistics, windows
from bench.errors import UserError
from bench.evaluate import calibrate, evaluate
from bench.flops.counter import UncountedOp
from bench.flops.inspector import Inspector, RuleBroken
from bench.headline import Headline, document_losses, domain_losses, mean_loss, measure, off_budget
from bench.metrics import changed, monitors, passage
from bench.record import CurvePoint, Flops, Provenance, Record, Status, Training
from bench.runner.cells import UNRANKED, Cell
from bench.runner.provenance import commit_state, machine_of, processor
from bench.train import Allowance, Diverged, Trained, train


def blueprint(cell: Cell, corpus: Corpus) -> Blueprint:
    """What the cell's suite and row say about the model."""
    suite = cell.suite
    config = decoder_config(suite.backbone, corpus.vocab_size, suite.seq_len)
    if suite.routed_layers[-1] >= config.num_layers:
        raise UserError(
            f"routed_layers names layer {suite.routed_layers[-1]}; the backbone {suite.backbone!r} has layers 0 to {config.num_layers - 1}."
        )
    return Blueprint(
        entry=cell.entry,
        options=cell.row.options,
        decoder=config,
        routed_layers=suite.routed_layers,
        seq_len=suite.seq_len,
        budget=suite.budget,
        num_domains=len(corpus.domains),
        bracket=cell.row.role == "bracket",
    )


def cell_key(cell: Cell, corpus: Corpus) -> str:
    """The cell's content key on this machine."""
    return cell.key(corpus.content_hash, machine_of(torch.device(cell.suite.device), cell.suite.dtype))


def run_cell(cell: Cell, command: str, checkpoints: Checkpoints | None = None) -> Record:
    """Train, calibrate, evaluate, and say what came of it.

    A run that diverges leaves a record of status "failed", one whose router breaks a rule "invalid": results too.

    Args:
        cell: what to run.
        command: the command line to name in the record.
        checkpoints: where an interrupted run left its state; None to start afresh and leave none.
    """
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    corpus = load_corpus(cell.suite.data)
    provenance = _provenance(cell, corpus, command, started)
    identity, key = cell.identity(), cell_key(cell, corpus)
    try:
        model = assemble(blueprint(cell, corpus), cell.seed, cell.row.router_seed)
        model.decoder.to(cell.suite.device)
        watch = _Watch(cell, corpus, model)
        inspector = Inspector(model, cell.seed)
        trained = _train(cell, corpus, model, watch, checkpoints, inspector)
        validation = _cut(cell, corpus, "validation", cell.suite.evaluation.validation_windows)
        calibration = _cut(cell, corpus, "calibration", cell.suite.evaluation.calibration_windows)
        headline = measure(model, corpus, calibration, validation, cell.suite.evaluation, dtype_of(cell), inspector.decide)
    except Diverged as error:
        return Record(key=key, status="failed", reason=str(error), cell=identity, provenance=provenance)
    except (RuleBroken, UncountedOp) as error:
        return Record(key=key, status="invalid", reason=str(error), cell=identity, provenance=provenance)
    ledger, decoder, evaluation = model.evaluation_ledger, model.decoder, headline.evaluation
    causality = prove(decoder, validation, evaluation, cell.seed, cell.suite.evaluation.batch_size, dtype_of(cell))
    missed = "" if cell.row.role in UNRANKED else off_budget(headline.audit)
    reason = missed if causality.passed else causality.detail
    status: Status = "ok" if not reason else "off_budget" if causality.passed else "invalid"
    return Record(
        key=key,
        status=status,
        reason=reason,
        cell=identity,
        provenance=provenance,
        loss=headline.loss,
        calibrated_loss=mean_loss(domain_losses(evaluation.nats, validation, corpus), corpus),
        domain_loss=headline.domain_loss,
        headline_domains=corpus.headline_domains,
        documents=document_losses(evaluation.nats, validation, corpus),
        budget=headline.audit,
        flops=_flops(cell, model, headline, trained),
        training=_training(model, headline, trained),
        causality=causality,
        curve=tuple(watch.curve),
        monitors=monitors(decoder, ledger, corpus, validation, evaluation, watch.churn),
        auxiliary=trained.auxiliary,
        passage=passage(ledger, decoder, corpus, validation, evaluation) if cell.seed == 0 else None,
    )


def dtype_of(cell: Cell) -> torch.dtype:
    """Precision of matrix products."""
    return torch.bfloat16 if cell.suite.dtype == "bfloat16" else torch.float32


def _cut(cell: Cell, corpus: Corpus, split: Literal["calibration", "validation"], per_domain: int) -> Windows:
    held_out = corpus.calibration if split == "calibration" else corpus.validation
    return windows(held_out, seq_len=cell.suite.seq_len, per_domain=per_domain)


@dataclass
class _Watch:
    """Causal probes during training: the curve, and how much routing still moves."""

    cell: Cell
    corpus: Corpus
    model: Model
    curve: list[CurvePoint] = field(default_factory=list[CurvePoint])
    churn: dict[int, float] = field(default_factory=dict[int, float])
    masks: dict[int, Tensor] = field(default_factory=dict[int, Tensor])

    def __post_init__(self) -> None:
        count = self.cell.suite.evaluation.probe_windows
        self.validation = _cut(self.cell, self.corpus, "validation", count)
        self.calibration = _cut(self.cell, self.corpus, "calibration", count)

    def state_dict(self) -> dict[str, Any]:
        """What the probes have found so far."""
        return {"curve": [point.model_dump() for point in self.curve], "churn": self.churn, "masks": self.masks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.curve = [CurvePoint.model_validate(point) for point in state["curve"]]
        self.churn, self.masks = state["churn"], state["masks"]

    def probe(self, step: int, tokens: int, flops: float, seconds: float, train_loss: float) -> None:
        """Calibrate and evaluate on a few windows of every domain."""
        calibrate(self.model, self.calibration, 1.0, dtype_of(self.cell))
        found = evaluate(self.model, self.validation, self.cell.suite.evaluation.batch_size, dtype_of(self.cell), keep=True)
        loss = mean_loss(domain_losses(found.nats, self.validation, self.corpus), self.corpus)
        self.curve.append(CurvePoint(step=step, tokens=tokens, flops=flops, seconds=seconds, train_loss=train_loss, loss=loss))
        self.churn = {site: changed(mask, self.masks[site]) for site, mask in found.masks.items() if site in self.masks}
        self.masks = found.masks


def _train(cell: Cell, corpus: Corpus, model: Model, watch: _Watch, checkpoints: Checkpoints | None, inspector: Inspector) -> Trained:
    suite = cell.suite
    if checkpoints is not None:
        checkpoints.parts["watch"] = watch
    tokens = suite.train.reference_tokens
    by_flops = cell.match == "flops"
    infinity = float("inf")
    allowance = Allowance(3 * model.solution.target * tokens if by_flops else infinity, infinity if by_flops else tokens)
    return train(
        model,
        corpus.train,
        suite.train,
        allowance,
        seq_len=suite.seq_len,
        seed=cell.seed,
        router_seed=cell.row.router_seed,
        lr_scale=cell.row.lr_scale,
        dtype=dtype_of(cell),
        statistics=lambda: _statistics(corpus),
        probe=watch.probe,
        checkpoints=checkpoints,
        inspector=inspector,
    )


def _statistics(corpus: Corpus) -> TrainStatistics:
    unigram, bigram = statistics(corpus)
    return TrainStatistics(torch.from_numpy(unigram), None if bigram is None else torch.from_numpy(bigram))


def _provenance(cell: Cell, corpus: Corpus, command: str, started: str) -> Provenance:
    commit, dirty = commit_state()
    return Provenance(
        command=command,
        commit=commit,
        dirty=dirty,
        started=started,
        processor=processor(),
        config=cell.suite.canonical(),
        config_hash=cell.config_hash,
        plugin_hash=cell.entry.plugin_hash,
        data_hash=corpus.content_hash,
        **machine_of(torch.device(cell.suite.device), cell.suite.dtype),
    )


def _flops(cell: Cell, model: Model, headline: Headline, trained: Trained) -> Flops:
    at_budget = headline.audit.headline == "interpolated"
    ledger = model.evaluation_ledger
    return Flops(
        active=model.solution.target if at_budget else headline.evaluation.active,
        executed=headline.evaluation.executed,
        dense=model.solution.dense,
        training=dict(sorted(model.ledger.spent.items())),
        training_total=model.ledger.total,
        training_budget=3 * model.solution.target * cell.suite.train.reference_tokens,
        optimizer=trained.optimizer_flops,
        evaluation=ledger.total,
    )


def _training(model: Model, headline: Headline, trained: Trained) -> Training:
    shares = [mask.float().mean((0, 1)).tolist() for mask in headline.evaluation.masks.values()]
    total = sum(p.numel() for p in model.decoder.parameters())
    return Training(
        steps=trained.steps,
        tokens=trained.tokens,
        seconds=trained.seconds,
        tokens_per_second=trained.tokens / trained.seconds,
        peak_memory_mb=peak_memory_mb(),
        parameters_total=total,
        parameters_active=model.active_parameters(shares),
    )


def peak_memory_mb() -> float:
    """Largest resident memory of this process, or of the GPU where one is used."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
