"""Train any router on one budget. The schedule follows the spent share of the budget."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from bench.backbone.decoder import device_of
from bench.config.suite import TrainConfig
from bench.data import Split, train_batch
from bench.errors import Diverged
from bench.flops.counter import count
from bench.flops.meter import Meter
from bench.model.assemble import Model
from bench.rng import generator
from bench.routing.contract import Router, TrainStatistics
from bench.training.checkpoint import Checkpoints
from bench.training.curriculum import Curriculum
from bench.training.step import Stepper, Trained
from bench.training.supervision import Supervisor
from bench.training.utility import Oracle

Report = Callable[[float, Tensor], None]
"""Called with (spent share of the budget, loss of a step)."""
Probe = Callable[[int, int, float, float, float], None]
"""Called with (step, tokens, FLOPs, seconds of training, mean training loss since the last probe).
"""


@dataclass(frozen=True)
class Allowance:
    """Training budget of one run.

    Attributes:
        flops: training FLOPs, the currency; infinite if tokens are matched.
        tokens: training tokens, for the brackets and `--match tokens`; infinite if FLOPs are
            matched.
    """

    flops: float
    tokens: float

    def spent(self, flops: float, tokens: int) -> float:
        """Return the spent share of the budget; 1 for an empty budget."""
        return max(flops / self.flops, tokens / self.tokens) if self.flops and self.tokens else 1.0


def train(
    model: Model,
    split: Split,
    config: TrainConfig,
    allowance: Allowance,
    *,
    seq_len: int,
    seed: int,
    router_seed: int = 0,
    lr_scale: float = 1.0,
    dtype: torch.dtype = torch.float32,
    statistics: Callable[[], TrainStatistics] | None = None,
    probe: Probe | None = None,
    report: Report = lambda share, loss: None,
    checkpoints: Checkpoints | None = None,
    meter: Meter | None = None,
) -> Trained:
    """Train until the allowance is spent, overshooting by at most one step.

    Args:
        model: the assembled model. Its ledger is charged.
        split: training text.
        config: the recipe.
        allowance: the budget; the learning-rate schedule follows its spent share.
        seq_len: tokens per sequence.
        seed: seed of the data order and, with `router_seed`, of the routing noise.
        router_seed: gives a twin its own noise.
        lr_scale: factor on every learning rate.
        dtype: precision of matrix products.
        statistics: counts the training split; called only if a router fits tables.
        probe: called `config.probes` times, evenly over the allowance, and at the end.
        report: called after every step; it changes nothing.
        checkpoints: state to resume from, and place for new checkpoints.
        meter: runs the routers under the counter at some steps.

    Raises:
        Diverged: the loss is not finite.
        RuleBroken: a metered router returned a malformed plan or ran an operation without a price.
    """
    loop, order = begin(
        model,
        split,
        config,
        seq_len=seq_len,
        seed=seed,
        router_seed=router_seed,
        lr_scale=lr_scale,
        dtype=dtype,
        statistics=statistics,
    )
    if checkpoints is not None:
        checkpoints.parts["curriculum"] = order
        checkpoints.parts["training"] = loop
        checkpoints.restore(model.decoder)
    done = loop.done
    # Everything below depends on the restored state and the step alone, so a resumed run is equal.
    while (progress := allowance.spent(model.ledger.total, done.tokens)) < 1.0:
        if checkpoints is not None:
            checkpoints.save_if_due(model.decoder, done.steps)
        if probe is not None and progress * config.probes >= loop.probed + 1:
            loop.probed += 1
            _probe(loop, probe)
            loop.since = []
        # Probes and checkpoints are not part of the measured training time.
        started = time.perf_counter()
        if meter is not None:
            loop.inspect(meter, done.steps)
        report(progress, advance(loop, order, progress))
        done.seconds += time.perf_counter() - started
    # The last state is kept too: the evaluation that follows may be killed.
    if checkpoints is not None:
        checkpoints.save_if_due(model.decoder, done.steps)
    if probe is not None:
        _probe(loop, probe)
    return _finished(loop, order)


def begin(
    model: Model,
    split: Split,
    config: TrainConfig,
    *,
    seq_len: int,
    seed: int,
    router_seed: int = 0,
    lr_scale: float = 1.0,
    dtype: torch.dtype = torch.float32,
    statistics: Callable[[], TrainStatistics] | None = None,
) -> tuple[Stepper, Curriculum]:
    """Return the state of a training before its first step, and its data order; see `train`."""
    noise = generator(seed, f"noise/{router_seed}", device_of(model.decoder))
    supervisor = Supervisor(model, len(split.document_tags))
    loop = Stepper(model, config, lr_scale, dtype, noise, Oracle(model, seed, dtype), supervisor)
    if statistics is not None:
        _fit(model, statistics)
    drawn = partial(train_batch, split, seed=seed, batch_size=config.batch_size, seq_len=seq_len)
    return loop, Curriculum(model, drawn, config.router.curriculum, seed=seed, dtype=dtype)


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


def _finished(loop: Stepper, order: Curriculum) -> Trained:
    """Return the result of a training, with the figures that are known at its end alone."""
    done = loop.done
    done.optimizer_flops = loop.muon_flops * done.steps
    done.shares = loop.choices.shares
    done.curriculum = order.correlations
    done.auxiliary = {name: float(value) for name, value in loop.last_auxiliary.items()}
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
    done = loop.done
    done.gradients.append(loop.gradients.tolist())
    probe(done.steps, done.tokens, loop.model.ledger.total, done.seconds, _mean(loop.since))


def _mean(losses: list[Tensor]) -> float:
    # Losses stay on the device between probes; this line waits for it.
    value = float(torch.stack(losses).mean()) if losses else math.nan
    if losses and not math.isfinite(value):
        raise Diverged("The training loss is not finite.")
    return value
