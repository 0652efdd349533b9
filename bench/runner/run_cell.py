"""Run one cell from text to record: train, evaluate, judge."""

import datetime
from dataclasses import dataclass
from math import isfinite, log
from pathlib import Path
from typing import Any

import torch

from bench.backbone.compiled import compile_parts
from bench.conformance.causality import prove
from bench.conformance.unchanged import unchanged
from bench.data import Corpus, Windows, statistics
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
from bench.evaluation.other_routes import other_routes
from bench.evaluation.recall import recall
from bench.evaluation.right_paths import right_paths
from bench.evaluation.shares import moved_shares
from bench.evaluation.supervision import measure_supervision
from bench.evaluation.utility import utility_correlation
from bench.flops.counter import UncountedOp
from bench.flops.meter import Meter
from bench.model.assemble import Model, assemble
from bench.record import Causality, Flops, Provenance, Record, Status, Training
from bench.routing.contract import Policy, TrainStatistics
from bench.runner.frozen import allowance, freeze, training_budget
from bench.runner.memory import PeakMemory
from bench.runner.plugins import checks_of, offence
from bench.runner.probes import Watch, cut
from bench.runner.provenance import commit_state, processor
from bench.runner.resolve import ResolvedCell
from bench.runner.rows import UNRANKED
from bench.training.checkpoint import Checkpoints
from bench.training.loop import Trained, train

DIVERGED = 2.0
"""Training has diverged if the loss is above this multiple of the loss of guessing."""


@dataclass(frozen=True)
class TrainedCell:
    """A trained model with the results of its training.

    Attributes:
        model: the model.
        trained: the result of training.
        watch: the causal probes.
        meter: the meter, with the prices of training.
        pretraining: FLOPs of the frozen backbone; 0 in other regimes.
    """

    model: Model
    trained: Trained
    watch: Watch
    meter: Meter
    pretraining: float


@dataclass(frozen=True)
class EvaluatedCell:
    """The official evaluation of a trained model.

    Attributes:
        headline: losses and spend at B.
        validation: the validation windows.
        causality: the result of the causality proof.
    """

    headline: Headline
    validation: Windows
    causality: Causality


def run_cell(
    resolved: ResolvedCell,
    command: str,
    store: Path,
    checkpoints: Checkpoints | None = None,
    progress: Path | None = None,
    beside: int = 0,
) -> Record:
    """Train, calibrate and evaluate a cell, and return its record.

    An error inside the cell is a result too, with its reason. The status is "failed" for a run that
    breaks off, "diverged" for one that diverges, and "invalid" if its router breaks a rule.

    Args:
        resolved: the cell.
        command: the command line, for the record.
        store: tree of records with the results of plugins' checks.
        checkpoints: state of an interrupted run, and place for new checkpoints; or None.
        progress: file for the progress of the cell; or None.
        beside: number of other workers in the run.
    """
    memory = PeakMemory(torch.device(resolved.cell.suite.device))
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    cell = resolved.cell
    # Every ending fills in this record, also a crash.
    blank = Record(
        key=resolved.key,
        status="failed",
        cell=resolved.cell_id,
        row=cell.row,
        provenance=_provenance(resolved, command, started),
    )
    try:
        # A plugin that breaks an honest-row rule is refused before it costs any time.
        checks = checks_of(resolved.entry, cell.row.options, cell.plugin_files, store)
        blank = blank.model_copy(update={"checks": checks})
        if broken := offence(checks):
            return blank.model_copy(update={"status": "invalid", "reason": broken})
        trained = train_cell(resolved, checkpoints, progress)
        evaluated = evaluate_cell(resolved, trained)
        found = _measured(resolved, trained, evaluated, memory, beside)
        judged = judge_cell(resolved, trained, evaluated)
        return Record.model_validate({**dict(blank), **found, **judged})
    except (RuleBroken, UncountedOp) as error:
        return blank.model_copy(update={"status": "invalid", "reason": str(error)})
    except Diverged as error:
        said = {"status": "diverged", "reason": str(error), "loss": error.loss}
        return blank.model_copy(update=said)
    except UserError as error:
        return blank.model_copy(update={"reason": str(error)})
    except BaseException as error:
        let_through(error)
        return blank.model_copy(update={"reason": located(error)})


def train_cell(
    resolved: ResolvedCell, checkpoints: Checkpoints | None = None, progress: Path | None = None
) -> TrainedCell:
    """Assemble the model of a cell and train it to the end of its allowance.

    Raises:
        Diverged: the loss is not finite.
        RuleBroken: the router broke a rule.
        UserError: no size of the router meets the budget, or its cost cannot be counted.
    """
    cell, corpus, suite = resolved.cell, resolved.corpus, resolved.cell.suite
    model = assemble(resolved.blueprint(), cell.seed, cell.row.router_seed)
    pretraining = freeze(resolved, model, progress)
    model.decoder.to(suite.device)
    model.decoder.truth = corpus.truth
    # Compile after the weights are in place on the device.
    if suite.compile:
        compile_parts(model.decoder)
    watch, meter = Watch(resolved, model, progress), model.meter(cell.seed)
    # A resumed run keeps the probes that it has made.
    if checkpoints is not None:
        checkpoints.parts["watch"] = watch
    trained = train(
        model,
        corpus.train,
        suite.train.model_copy(update={"router": cell.training}),
        allowance(cell, model),
        seq_len=suite.seq_len,
        seed=cell.seed,
        router_seed=cell.row.router_seed,
        lr_scale=cell.row.lr_scale,
        dtype=resolved.dtype,
        statistics=lambda: _statistics(corpus),
        probe=watch.probe,
        checkpoints=checkpoints,
        meter=meter,
    )
    return TrainedCell(model, trained, watch, meter, pretraining)


def evaluate_cell(resolved: ResolvedCell, found: TrainedCell) -> EvaluatedCell:
    """Calibrate and evaluate a trained model, and prove its causality.

    Raises:
        Diverged: the loss is not finite, or far above guessing.
        RuleBroken: the router broke a rule.
    """
    cell, model, config = resolved.cell, found.model, resolved.cell.suite.evaluation
    validation = cut(resolved, "validation", config.validation_windows)
    calibration = cut(resolved, "calibration", config.calibration_windows)
    with unchanged(model.decoder, "The official evaluation"):
        headline = measure(
            model,
            resolved.corpus,
            calibration,
            validation,
            config,
            resolved.dtype,
            found.meter.decide,
        )
    # A model that diverged is not worth the trials of the proof.
    refuse_diverged(headline, model.decoder.config.vocab_size)
    causality = prove(
        model.decoder,
        validation,
        headline.visited,
        cell.seed,
        config.batch_size,
        resolved.dtype,
    )
    return EvaluatedCell(headline, validation, causality)


def refuse_diverged(headline: Headline, vocab_size: int) -> None:
    """Raise `Diverged` with the loss if training has diverged.

    A guess among all tokens costs ln(vocabulary). Sound training ends below it, and an untrained
    model is slightly above.
    """
    nats, most = float(headline.evaluation.nats.mean()), DIVERGED * log(vocab_size)
    if not (isfinite(headline.loss) and nats <= most):
        raise Diverged(
            f"The loss is {nats:.4g} nats a token after training, above {DIVERGED:g} times that "
            f"of guessing ({most:.4g}). Lower the learning rates.",
            headline.loss,
        )


def judge_cell(
    resolved: ResolvedCell, trained: TrainedCell, found: EvaluatedCell
) -> dict[str, Any]:
    """Return the status of a cell and the reason why it may not be ranked, if so."""
    # Brackets and informed rows need not meet the budget, but no row may look ahead, or be
    # evaluated at other shares than it was trained at.
    unranked = resolved.cell.row.role in UNRANKED
    missed = "" if unranked else off_budget(found.headline.audit)
    if not found.causality.passed:
        return {"status": "invalid", "reason": found.causality.detail}
    chosen = found.headline.evaluation.chosen
    if moved := moved_shares(trained.model.decoder.routers, trained.trained, chosen):
        return {"status": "invalid", "reason": moved}
    status: Status = "off_budget" if missed else "ok"
    return {"status": status, "reason": missed}


def _measured(
    resolved: ResolvedCell,
    trained: TrainedCell,
    evaluated: EvaluatedCell,
    memory: PeakMemory,
    beside: int,
) -> dict[str, Any]:
    """Return the measured fields of the record."""
    cell, corpus, suite = resolved.cell, resolved.corpus, resolved.cell.suite
    model, watch, dtype = trained.model, trained.watch, resolved.dtype
    headline, validation = evaluated.headline, evaluated.validation
    evaluation, decoder, ledger = headline.evaluation, model.decoder, model.evaluation_ledger
    batch_size = suite.evaluation.batch_size
    # Utility once as the router's own labels have it, and once with later layers as in use.
    policies: tuple[Policy | None, ...] = (None, "on_policy")
    utility = [
        utility_correlation(model, watch.validation, batch_size, cell.seed, dtype, policy)
        for policy in policies
    ]
    gradients, shares = trained.trained.gradients, trained.trained.shares
    return {
        "loss": headline.loss,
        "calibrated_loss": mean_loss(domain_losses(evaluation.nats, validation, corpus), corpus),
        "domain_loss": headline.domain_loss,
        "headline_domains": corpus.headline_domains,
        "documents": document_losses(evaluation.nats, validation, corpus),
        "budget": headline.audit,
        "flops": _flops(resolved, trained, headline),
        "training": _training(model, headline, trained.trained, memory),
        "speed": measure_speed(model, validation, dtype).model_copy(update={"beside": beside}),
        "causality": evaluated.causality,
        "curve": tuple(watch.curve),
        "monitors": monitors(
            decoder,
            ledger,
            corpus,
            validation,
            evaluation,
            watch.masks,
            gradients,
            shares,
            *utility,
        ),
        "supervision": measure_supervision(
            model, corpus.train, suite.seq_len, suite.evaluation, cell.seed, dtype
        ),
        "truth": right_paths(decoder, suite, corpus, validation, evaluation),
        "recall": recall(evaluation.nats, validation, corpus.token_bytes),
        "other_routes": other_routes(model, watch.validation, batch_size, cell.seed, dtype),
        "auxiliary": trained.trained.auxiliary,
        "passage": passage(ledger, decoder, corpus, validation, evaluation)
        if cell.seed == 0
        else None,
    }


def _statistics(corpus: Corpus) -> TrainStatistics:
    unigram, bigram = statistics(corpus)
    return TrainStatistics(
        torch.from_numpy(unigram), None if bigram is None else torch.from_numpy(bigram)
    )


def _provenance(resolved: ResolvedCell, command: str, started: str) -> Provenance:
    commit, dirty = commit_state()
    return Provenance(
        command=command,
        commit=commit,
        dirty=dirty,
        started=started,
        processor=processor(),
        config=resolved.cell.suite.canonical(),
        config_hash=resolved.config_hash,
        router_hash=resolved.identity,
        data_hash=resolved.corpus.content_hash,
        **resolved.machine,
    )


def _flops(resolved: ResolvedCell, found: TrainedCell, headline: Headline) -> Flops:
    model, trained = found.model, found.trained
    # An interpolated headline stands at B exactly; a single point at its own spend.
    at_budget = headline.audit.headline == "interpolated"
    ledger = model.evaluation_ledger
    return Flops(
        active=model.solution.target if at_budget else headline.evaluation.active,
        executed=headline.evaluation.executed,
        dense=model.solution.dense,
        training=dict(sorted(model.ledger.spent.items())),
        training_total=model.ledger.total,
        training_budget=training_budget(resolved.cell, model),
        optimizer=trained.optimizer_flops,
        evaluation=ledger.total,
        pretraining=found.pretraining,
    )


def _training(model: Model, headline: Headline, trained: Trained, memory: PeakMemory) -> Training:
    # Parameters are counted at the measured shares of the paths, not at the solved ones.
    shares = [mask.float().mean((0, 1)).tolist() for mask in headline.evaluation.masks.values()]
    total = sum(p.numel() for p in model.decoder.parameters())
    return Training(
        steps=trained.steps,
        tokens=trained.tokens,
        seconds=trained.seconds,
        tokens_per_second=trained.tokens / trained.seconds if trained.steps else 0.0,
        peak_memory_mb=memory.megabytes(),
        parameters_total=total,
        parameters_active=model.active_parameters(shares),
    )
