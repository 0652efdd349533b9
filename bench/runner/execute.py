"""Run one cell from data to record."""

import datetime
import resource
from pathlib import Path

import torch

from bench.backbone.compiled import compile_parts
from bench.backbone.presets import decoder_config
from bench.config.suite import RouterTraining
from bench.conformance.admission import inadmissible
from bench.conformance.causality import prove
from bench.conformance.unchanged import unchanged
from bench.conformance.unwatched import side_work
from bench.data import Corpus, load_corpus, statistics
from bench.errors import Diverged, RuleBroken, UserError, let_through, located
from bench.evaluation.headline import (
    Headline,
    document_losses,
    domain_losses,
    mean_loss,
    measure,
    off_budget,
)
from bench.evaluation.latency import measure_speed
from bench.evaluation.monitors import monitors, passage
from bench.evaluation.right_paths import right_paths
from bench.evaluation.supervision import measure_supervision
from bench.evaluation.utility import utility_correlation
from bench.flops.counter import UncountedOp
from bench.flops.meter import Meter
from bench.model.assemble import Blueprint, Model, assemble
from bench.record import Flops, Provenance, Record, Status, Training
from bench.routing.contract import Policy, TrainStatistics
from bench.runner.cells import UNRANKED, Cell
from bench.runner.frozen import allowance, freeze, training_budget
from bench.runner.provenance import commit_state, machine_of, processor
from bench.runner.watch import Watch, cut, dtype_of
from bench.training.checkpoint import Checkpoints
from bench.training.loop import Trained, train


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
        training=training_of(cell),
    )


def training_of(cell: Cell) -> RouterTraining:
    """How the cell's router is trained."""
    return cell.row.training or cell.suite.train.router


def cell_key(cell: Cell, corpus: Corpus) -> str:
    """The cell's content key on this machine."""
    return cell.key(
        corpus.content_hash, machine_of(torch.device(cell.suite.device), cell.suite.dtype)
    )


def run_cell(
    cell: Cell, command: str, checkpoints: Checkpoints | None = None, progress: Path | None = None
) -> Record:
    """Train, calibrate, evaluate, and say what came of it.

    Whatever goes wrong inside the cell is a result too: a run that diverges or breaks off leaves a
    record of status "failed", one whose router breaks a rule "invalid", with the reason.

    Args:
        cell: what to run.
        command: the command line to name in the record.
        checkpoints: where an interrupted run left its state; None to start afresh and leave none.
        progress: file that says how far the cell is; None to say nothing.
    """
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    corpus = load_corpus(cell.data)
    blank = Record(
        key=cell_key(cell, corpus),
        status="failed",
        cell=cell.identity(),
        provenance=_provenance(cell, corpus, command, started),
    )
    try:
        if broken := inadmissible(cell.entry, cell.row.options):
            return blank.model_copy(update={"status": "invalid", "reason": broken})
        return _run(cell, corpus, blank, checkpoints, progress)
    except (RuleBroken, UncountedOp) as error:
        return blank.model_copy(update={"status": "invalid", "reason": str(error)})
    except (Diverged, UserError) as error:
        return blank.model_copy(update={"reason": str(error)})
    except BaseException as error:
        let_through(error)
        return blank.model_copy(update={"reason": located(error)})


def _run(
    cell: Cell,
    corpus: Corpus,
    blank: Record,
    checkpoints: Checkpoints | None,
    progress: Path | None,
) -> Record:
    model = assemble(blueprint(cell, corpus), cell.seed, cell.row.router_seed)
    pretraining = freeze(cell, corpus, model, progress)
    model.decoder.to(cell.suite.device)
    model.decoder.truth = corpus.truth
    if cell.suite.compile:
        compile_parts(model.decoder)
    watch = Watch(cell, corpus, model, progress)
    meter = model.meter(cell.seed)
    trained = _train(cell, corpus, model, watch, checkpoints, meter)
    validation = cut(cell, corpus, "validation", cell.suite.evaluation.validation_windows)
    calibration = cut(cell, corpus, "calibration", cell.suite.evaluation.calibration_windows)
    with unchanged(model.decoder, "The official evaluation"):
        headline = measure(
            model,
            corpus,
            calibration,
            validation,
            cell.suite.evaluation,
            dtype_of(cell),
            meter.decide,
        )
    ledger, decoder, evaluation = model.evaluation_ledger, model.decoder, headline.evaluation
    causality = prove(
        decoder,
        validation,
        headline.visited,
        cell.seed,
        cell.suite.evaluation.batch_size,
        dtype_of(cell),
    )
    if cell.outside and (offence := side_work(model, validation)):
        raise RuleBroken(offence)
    policies: tuple[Policy | None, ...] = (None, "on_policy")
    utility = [
        utility_correlation(
            model,
            watch.validation,
            cell.suite.evaluation.batch_size,
            cell.seed,
            dtype_of(cell),
            policy,
        )
        for policy in policies
    ]
    missed = "" if cell.row.role in UNRANKED else off_budget(headline.audit)
    reason = missed if causality.passed else causality.detail
    status: Status = "ok" if not reason else "off_budget" if causality.passed else "invalid"
    found = {
        "status": status,
        "reason": reason,
        "loss": headline.loss,
        "calibrated_loss": mean_loss(domain_losses(evaluation.nats, validation, corpus), corpus),
        "domain_loss": headline.domain_loss,
        "headline_domains": corpus.headline_domains,
        "documents": document_losses(evaluation.nats, validation, corpus),
        "budget": headline.audit,
        "flops": _flops(cell, model, headline, trained, pretraining),
        "training": _training(model, headline, trained),
        "speed": measure_speed(model, validation, dtype_of(cell)),
        "causality": causality,
        "curve": tuple(watch.curve),
        "monitors": monitors(
            decoder,
            ledger,
            corpus,
            validation,
            evaluation,
            watch.masks,
            trained.gradients,
            *utility,
        ),
        "supervision": measure_supervision(
            model,
            corpus.train,
            cell.suite.seq_len,
            cell.suite.evaluation,
            cell.seed,
            dtype_of(cell),
        ),
        "truth": right_paths(decoder, cell.suite, corpus, validation, evaluation),
        "auxiliary": trained.auxiliary,
        "passage": passage(ledger, decoder, corpus, validation, evaluation)
        if cell.seed == 0
        else None,
    }
    return Record.model_validate({**dict(blank), **found})


def _train(
    cell: Cell,
    corpus: Corpus,
    model: Model,
    watch: Watch,
    checkpoints: Checkpoints | None,
    meter: Meter,
) -> Trained:
    suite = cell.suite
    if checkpoints is not None:
        checkpoints.parts["watch"] = watch
    return train(
        model,
        corpus.train,
        suite.train.model_copy(update={"router": training_of(cell)}),
        allowance(cell, model),
        seq_len=suite.seq_len,
        seed=cell.seed,
        router_seed=cell.row.router_seed,
        lr_scale=cell.row.lr_scale,
        dtype=dtype_of(cell),
        statistics=lambda: _statistics(corpus),
        probe=watch.probe,
        checkpoints=checkpoints,
        meter=meter,
    )


def _statistics(corpus: Corpus) -> TrainStatistics:
    unigram, bigram = statistics(corpus)
    return TrainStatistics(
        torch.from_numpy(unigram), None if bigram is None else torch.from_numpy(bigram)
    )


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
        plugin_hash=cell.source_hash,
        data_hash=corpus.content_hash,
        **machine_of(torch.device(cell.suite.device), cell.suite.dtype),
    )


def _flops(
    cell: Cell, model: Model, headline: Headline, trained: Trained, pretraining: float
) -> Flops:
    at_budget = headline.audit.headline == "interpolated"
    ledger = model.evaluation_ledger
    return Flops(
        active=model.solution.target if at_budget else headline.evaluation.active,
        executed=headline.evaluation.executed,
        dense=model.solution.dense,
        training=dict(sorted(model.ledger.spent.items())),
        training_total=model.ledger.total,
        training_budget=training_budget(cell, model),
        optimizer=trained.optimizer_flops,
        evaluation=ledger.total,
        pretraining=pretraining,
    )


def _training(model: Model, headline: Headline, trained: Trained) -> Training:
    shares = [mask.float().mean((0, 1)).tolist() for mask in headline.evaluation.masks.values()]
    total = sum(p.numel() for p in model.decoder.parameters())
    return Training(
        steps=trained.steps,
        tokens=trained.tokens,
        seconds=trained.seconds,
        tokens_per_second=trained.tokens / trained.seconds if trained.steps else 0.0,
        peak_memory_mb=peak_memory_mb(),
        parameters_total=total,
        parameters_active=model.active_parameters(shares),
    )


def peak_memory_mb() -> float:
    """Largest resident memory of this process, or of the GPU where one is used."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
