"""Fill the record of a cell: all that is measured on its trained model, and where it comes from."""

from dataclasses import dataclass
from math import isfinite
from typing import Any

from bench.data import Corpus, Windows
from bench.evaluation.causal_choice import causal_choice
from bench.evaluation.headline import (
    Headline,
    document_losses,
    domain_losses,
    mean_loss,
)
from bench.evaluation.latency import measure_speed
from bench.evaluation.monitors import TrainingHistory, monitors, passage
from bench.evaluation.other_routes import other_routes
from bench.evaluation.recall import recall
from bench.evaluation.right_paths import right_paths
from bench.evaluation.supervision import measure_supervision
from bench.evaluation.utility import utility_correlation
from bench.flops.meter import Meter
from bench.model.assemble import Model
from bench.record import Causality, Flops, Provenance, Training
from bench.runner.frozen import training_budget
from bench.runner.memory import PeakMemory
from bench.runner.probes import Watch
from bench.runner.provenance import commit_state, instructions, processor
from bench.runner.resolve import ResolvedCell
from bench.training.task import Trained


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


def measured(
    resolved: ResolvedCell,
    trained: TrainedCell,
    evaluated: EvaluatedCell,
    memory: PeakMemory,
    beside: int,
) -> dict[str, Any]:
    """Return the measured fields of the record."""
    cell, corpus, suite = resolved.cell, resolved.corpus, resolved.cell.suite
    model, result, watch = trained.model, trained.trained, trained.watch
    headline, validation, dtype = evaluated.headline, evaluated.validation, resolved.dtype
    evaluation, probed = headline.evaluation, watch.validation
    # Further evaluations of the trained model, on the windows of the probes.
    again = (model, probed, suite.evaluation.batch_size, cell.seed, dtype)
    history = TrainingHistory(watch.masks, result.gradients, result.shares)
    # Utility once as the router's own labels have it, and once with later layers as in use.
    utility, in_use = utility_correlation(*again), utility_correlation(*again, "on_policy")
    return {
        **_losses(headline, validation, corpus),
        "budget": headline.audit,
        "flops": _flops(resolved, trained, headline),
        "training": _training(model, headline, result, memory),
        "speed": measure_speed(model, validation, dtype).model_copy(update={"beside": beside}),
        "causality": evaluated.causality,
        "curve": tuple(watch.curve),
        "monitors": monitors(model, corpus, validation, evaluation, history, utility, in_use),
        "supervision": measure_supervision(
            model, corpus.train, suite.seq_len, suite.evaluation, cell.seed, dtype
        ),
        "truth": right_paths(model.decoder, suite, corpus, validation, evaluation),
        "recall": recall(evaluation.nats, validation, corpus.token_bytes),
        "other_routes": other_routes(*again),
        "causal_choice": causal_choice(*again),
        "auxiliary": result.auxiliary,
        # One seed is enough to show how text is routed.
        "passage": None if cell.seed else passage(model, corpus, validation, evaluation),
    }


def provenance_of(resolved: ResolvedCell, command: str, started: str) -> Provenance:
    """Return where a record comes from: command, commit, machine, text and configuration."""
    commit, dirty = commit_state()
    return Provenance(
        command=command,
        commit=commit,
        dirty=dirty,
        started=started,
        processor=processor(),
        instructions=instructions(resolved.machine["device"], resolved.machine["dtype"]),
        config=resolved.cell.suite.canonical(),
        config_hash=resolved.config_hash,
        router_hash=resolved.identity,
        data_hash=resolved.corpus.content_hash,
        **resolved.machine,
    )


def _losses(headline: Headline, validation: Windows, corpus: Corpus) -> dict[str, Any]:
    nats = headline.evaluation.nats
    return {
        "loss": headline.loss,
        "calibrated_loss": mean_loss(domain_losses(nats, validation, corpus), corpus),
        "domain_loss": headline.domain_loss,
        "headline_domains": corpus.headline_domains,
        "documents": document_losses(nats, validation, corpus),
    }


def _flops(resolved: ResolvedCell, found: TrainedCell, headline: Headline) -> Flops:
    model, trained = found.model, found.trained
    # An interpolated headline is at B exactly; a single point at its own spend.
    at_budget = headline.audit.headline == "interpolated"
    ledger = model.evaluation_ledger
    return Flops(
        active=model.solution.target if at_budget else headline.evaluation.active,
        executed=headline.evaluation.executed,
        dense=model.solution.dense,
        training=dict(sorted(model.ledger.spent.items())),
        training_total=model.ledger.total,
        training_budget=training_budget(resolved.cell.suite, model.decoder.config),
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
        curriculum=tuple(value for value in trained.curriculum if isfinite(value)),
    )
