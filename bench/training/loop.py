"""Train any router on one budget. The schedule follows the spent share of the budget."""

import math
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from bench.data import train_batch
from bench.errors import Diverged
from bench.flops.counter import count
from bench.flops.meter import Meter
from bench.model.assemble import Model
from bench.routing.contract import Router, TrainStatistics
from bench.training.checkpoint import Checkpoints
from bench.training.curriculum import Curriculum
from bench.training.step import Stepper
from bench.training.task import Allowance, Trained, TrainTask

Report = Callable[[float, Tensor], None]
"""Called with (spent share of the budget, loss of a step)."""
Probe = Callable[[int, int, float, float, float], None]
"""Called with (step, tokens, FLOPs, seconds of training, mean training loss since the last probe).
"""


def train(
    model: Model,
    task: TrainTask,
    allowance: Allowance,
    *,
    probe: Probe | None = None,
    report: Report = lambda share, loss: None,
    checkpoints: Checkpoints | None = None,
    meter: Meter | None = None,
) -> Trained:
    """Train until the allowance is spent, overshooting by at most one step.

    Args:
        model: the assembled model. Its ledger is charged.
        task: the text, the recipe and the seeds.
        allowance: the budget; the learning-rate schedule follows its spent share.
        probe: called `task.config.probes` times, evenly over the allowance, and at the end.
        report: called after every step; it changes nothing.
        checkpoints: state to resume from, and place for new checkpoints.
        meter: runs the routers under the counter at some steps.

    Raises:
        Diverged: the loss is not finite.
        RuleBroken: a metered router returned a malformed plan or ran an operation without a price.
    """
    loop, order = begin(model, task)
    if checkpoints is not None:
        # Restoring fills every part, so all parts are named before it.
        checkpoints.parts["curriculum"] = order
        checkpoints.parts["training"] = loop
        checkpoints.restore(model.decoder)
    # Everything below depends on the restored state and the step alone, so a resumed run is equal.
    while (progress := allowance.spent(model.ledger.total, loop.done.tokens)) < 1.0:
        if checkpoints is not None:
            checkpoints.save_if_due(model.decoder, loop.done.steps)
        if probe is not None and progress * task.config.probes >= loop.probed + 1:
            _probe(loop, probe)
        _timed_step(loop, order, progress, meter, report)
    # The last state is kept too: the evaluation that follows may be killed.
    if checkpoints is not None:
        checkpoints.save_if_due(model.decoder, loop.done.steps)
    if probe is not None:
        _probe(loop, probe)
    return _finished(loop, order)


def begin(model: Model, task: TrainTask) -> tuple[Stepper, Curriculum]:
    """Return the state of a training before its first step, and its data order."""
    loop = Stepper(model, task)
    if task.statistics is not None:
        _fit(model, task.statistics)
    config, seed = task.config, task.seed
    drawn = partial(
        train_batch, task.split, seed=seed, batch_size=config.batch_size, seq_len=task.seq_len
    )
    return loop, Curriculum(model, drawn, config.router.curriculum, seed=seed, dtype=task.dtype)


def advance(loop: Stepper, order: Curriculum, progress: float) -> Tensor:
    """Do the next step of a training, and return its loss, nats per token."""
    done = loop.done
    batch = order.batch(done.steps, progress)
    tokens, tags, documents = map(torch.from_numpy, (batch.tokens, batch.tags, batch.documents))
    loss = loop.step(tokens, tags, documents, progress)
    loop.since.append(loss)
    done.steps += 1
    done.tokens += tokens[:, 1:].numel()
    return loss


def _timed_step(
    loop: Stepper, order: Curriculum, progress: float, meter: Meter | None, report: Report
) -> None:
    """Do and report a step. Its time counts; the time of probes and checkpoints does not."""
    started = time.perf_counter()
    if meter is not None:
        loop.inspect(meter, loop.done.steps)
    report(progress, advance(loop, order, progress))
    loop.done.seconds += time.perf_counter() - started


def _finished(loop: Stepper, order: Curriculum) -> Trained:
    """Return the result of a training, with the figures that are known at its end alone."""
    done = loop.done
    done.optimizer_flops = loop.optimizer_flops * done.steps
    done.shares = loop.choices.shares
    done.curriculum = order.correlations
    done.auxiliary = {name: float(value) for name, value in loop.auxiliary.last.items()}
    return done


def _fit(model: Model, statistics: Callable[[], TrainStatistics]) -> None:
    """Fit the routers that override `fit`, at their own cost; no others need the counts."""
    fitting = [router for router in model.decoder.routers if type(router).fit is not Router.fit]
    if fitting:
        counts = statistics()
        for router in fitting:
            flops = count(lambda: router.fit(counts)).total  # noqa: B023
            model.ledger.charge("router", "fit", flops)


def _probe(loop: Stepper, probe: Probe) -> None:
    """Report the state of a training, with the mean loss since the last probe."""
    done = loop.done
    loop.probed += 1
    done.gradients.append(loop.gradients.tolist())
    probe(done.steps, done.tokens, loop.model.ledger.total, done.seconds, _mean(loop.since))
    loop.since = []


def _mean(losses: list[Tensor]) -> float:
    # Losses stay on the device between probes; this line waits for it.
    value = float(torch.stack(losses).mean()) if losses else math.nan
    if losses and not math.isfinite(value):
        raise Diverged("The training loss is not finite.")
    return value
