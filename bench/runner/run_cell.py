"""Run one cell from text to record: train, evaluate, judge."""

import datetime
from collections.abc import Callable
from math import isfinite, log
from pathlib import Path
from typing import Any

import torch

from bench.backbone.compiled import compile_parts
from bench.backbone.decoder import Decoder
from bench.conformance.causality_proof import prove
from bench.conformance.unchanged import unchanged
from bench.data import Corpus, statistics
from bench.errors import Diverged, RuleBroken, UserError, let_through, located
from bench.evaluation.headline import (
    Headline,
    measure,
    off_budget,
)
from bench.evaluation.shares import moved_shares
from bench.flops.counter import UncountedOp
from bench.model.assemble import Model, assemble
from bench.ranks import world
from bench.record import Record, Status
from bench.routing.contract import TrainStatistics
from bench.runner.cell_phase import Pulse
from bench.runner.fill_record import EvaluatedCell, TrainedCell, measured, provenance_of
from bench.runner.frozen import allowance, freeze
from bench.runner.memory import PeakMemory
from bench.runner.plugins import checks_of, offence
from bench.runner.probes import Watch, cut
from bench.runner.resolve import ResolvedCell
from bench.runner.rows import UNRANKED
from bench.training.checkpoint import Checkpoints
from bench.training.loop import train
from bench.training.parallel import spread
from bench.training.task import TrainTask

DIVERGED = 2.0
"""Training has diverged if the loss is above this multiple of the loss of guessing."""


def run_cell(
    resolved: ResolvedCell,
    command: str,
    store: Path,
    checkpoints: Checkpoints | None = None,
    pulse: Pulse | None = None,
    beside: int = 0,
    keep: Callable[[Decoder], None] = lambda _: None,
) -> Record:
    """Train, calibrate and evaluate a cell, and return its record.

    An error inside the cell is a result too, with its reason. The status is "failed" if the run
    breaks off, "diverged" if it diverges, and "invalid" if its router breaks a rule.

    Args:
        resolved: the cell.
        command: the command line, for the record.
        store: tree of records with the results of plugins' checks.
        checkpoints: state of an interrupted run, and place for new checkpoints; or None.
        pulse: reports the phases of the cell; or None.
        beside: number of other workers in the run.
        keep: called with the trained model at the knobs of its evaluation.
    """
    memory = PeakMemory(torch.device(resolved.cell.suite.device))
    cell, blank = resolved.cell, _blank(resolved, command)
    try:
        # A plugin that breaks an honest-row rule is refused before it costs any time.
        checks = checks_of(resolved.entry, cell.row.options, cell.plugin_files, store)
        blank = blank.model_copy(update={"checks": checks})
        if broken := offence(checks):
            raise RuleBroken(broken)
        pulse = pulse or Pulse(cell)
        trained = train_cell(resolved, checkpoints, pulse)
        pulse.enter("evaluation")
        evaluated = evaluate_cell(resolved, trained)
        keep(trained.model.decoder)
        found = measured(resolved, trained, evaluated, memory, beside)
        judged = judge_cell(resolved, trained, evaluated)
        return Record.model_validate({**dict(blank), **found, **judged})
    except BaseException as error:
        return blank.model_copy(update=_ending(error))


def _blank(resolved: ResolvedCell, command: str) -> Record:
    """Return the record that every ending of a cell fills in, also a crash."""
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return Record(
        key=resolved.key,
        status="failed",
        cell=resolved.cell_id,
        row=resolved.cell.row,
        provenance=provenance_of(resolved, command, started),
    )


def _ending(error: BaseException) -> dict[str, Any]:
    """Return the fields of a record whose cell broke off, or raise what ends the run."""
    # The router broke the rules of an honest row.
    if isinstance(error, RuleBroken | UncountedOp):
        return {"status": "invalid", "reason": str(error)}
    if isinstance(error, Diverged):
        return {"status": "diverged", "reason": str(error), "loss": error.loss}
    if isinstance(error, UserError):
        return {"reason": str(error)}
    # An interrupt is no result of this cell.
    let_through(error)
    if world().size > 1:
        # The other ranks wait for this one, so all of them must end. Raised as it is, an OSError
        # would be taken for one in the way of the record, and this rank would go on.
        raise RuntimeError(located(error)) from error
    return {"reason": located(error)}


def train_cell(
    resolved: ResolvedCell, checkpoints: Checkpoints | None = None, pulse: Pulse | None = None
) -> TrainedCell:
    """Assemble the model of a cell and train it to the end of its allowance.

    Raises:
        Diverged: the loss is not finite.
        RuleBroken: the router broke a rule.
        UserError: no size of the router meets the budget, or its cost cannot be counted.
    """
    cell = resolved.cell
    pulse = pulse or Pulse(cell)
    model, pretraining = prepare(resolved, pulse)
    watch, meter = Watch(resolved, model), model.meter(cell.seed)
    # A resumed run keeps the probes that it has made.
    if checkpoints is not None:
        checkpoints.parts["watch"] = watch
    pulse.enter("training")
    trained = train(
        model,
        training_task(resolved),
        allowance(cell, model),
        probe=watch.probe,
        report=pulse.report,
        checkpoints=checkpoints,
        meter=meter,
    )
    return TrainedCell(model, trained, watch, meter, pretraining)


def prepare(resolved: ResolvedCell, pulse: Pulse) -> tuple[Model, float]:
    """Return the model of a cell on its device, and the FLOPs of its frozen backbone.

    Raises:
        UserError: no size of the router meets the budget, or its cost cannot be counted.
    """
    cell, suite = resolved.cell, resolved.cell.suite
    model = assemble(resolved.blueprint(), cell.seed, cell.row.router_seed)
    pretraining = freeze(resolved, model, pulse)
    spread(model.decoder, suite.parallel, torch.device(suite.device))
    model.decoder.truth = resolved.corpus.truth
    # Compile after the weights are in place on the device.
    if suite.compile:
        compile_parts(model.decoder)
    return model, pretraining


def training_task(resolved: ResolvedCell) -> TrainTask:
    """Return the terms of a cell's training, but for its budget."""
    cell, suite = resolved.cell, resolved.cell.suite
    return TrainTask(
        split=resolved.corpus.train,
        config=suite.train.model_copy(update={"router": cell.training}),
        seq_len=suite.seq_len,
        seed=cell.seed,
        router_seed=cell.row.router_seed,
        lr_scale=cell.row.lr_scale,
        dtype=resolved.dtype,
        statistics=lambda: statistics_of(resolved.corpus),
    )


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


def statistics_of(corpus: Corpus) -> TrainStatistics:
    """Return the counts of the training split, for routers that fit tables."""
    unigram, bigram = statistics(corpus)
    return TrainStatistics(
        torch.from_numpy(unigram), None if bigram is None else torch.from_numpy(bigram)
    )
