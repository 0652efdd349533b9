"""Do one training step, and hold the state that the next step depends on."""

from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bench.backbone.decoder import device_of
from bench.backbone.passes import Decide, Pass, ask, autocast, make_pass
from bench.backbone.token_losses import token_losses
from bench.flops.counter import count
from bench.flops.ledger import first_gradient
from bench.flops.meter import Meter
from bench.model.assemble import Model
from bench.ranks import drawing, gather, mean, rows, slicing, world
from bench.rng import generator
from bench.routing.contract import LayerTrace, Router, RouterInput, RoutingPlan
from bench.training.auxiliary import AuxiliaryLosses
from bench.training.choices import Choices
from bench.training.optim import (
    gradient_norms,
    make_optimisers,
    newton_schulz_flops,
    trapezoid,
)
from bench.training.parallel import average, forget_idle, load_optimiser, whole_state
from bench.training.supervision import Supervisor
from bench.training.task import Trained, TrainTask
from bench.training.utility import Oracle
from bench.training.whole import whole_counts, whole_traces


class Stepper:
    """The state of a training run without the model: optimisers, noise, prices and progress."""

    def __init__(self, model: Model, task: TrainTask) -> None:
        self.model, self.config, self.dtype = model, task.config, task.dtype
        decoder = model.decoder
        self.device = device_of(decoder)
        self.noise = generator(task.seed, f"noise/{task.router_seed}", self.device)
        self.supervisor = Supervisor(model, len(task.split.document_tags))
        self.oracle = Oracle(model, task.seed, task.dtype)
        self.optimisers = make_optimisers(decoder, task.config, task.lr_scale)
        # The schedule scales these rates, which hold in its flat part.
        self.peaks = [
            [group["lr"] for group in optimiser.param_groups] for optimiser in self.optimisers
        ]
        # FLOPs of the optimisers in a step.
        self.optimizer_flops = newton_schulz_flops(self.optimisers[0].param_groups[0]["params"])
        self.auxiliary = AuxiliaryLosses(model.losses)
        self.gradients = torch.full((len(decoder.routers), 2), torch.nan)
        self.choices = Choices(decoder.routers)
        self.done = Trained()
        self.since: list[Tensor] = []
        self.probed = 0
        self.decide: Decide = ask

    def inspect(self, meter: Meter, step: int) -> None:
        """Meter the routers and price the auxiliary losses again, if the step is due."""
        self.decide = meter.decide_at(step)
        if meter.due(step):
            self.auxiliary.flops = None

    def state_dict(self) -> dict[str, Any]:
        """Return the state that the next step depends on, without the weights."""
        return {
            "optimisers": [whole_state(optimiser.state_dict()) for optimiser in self.optimisers],
            "noise": self.noise.get_state(),
            "spent": [
                dict(ledger.spent) for ledger in (self.model.ledger, self.model.evaluation_ledger)
            ],
            "prices": [
                [site.router for site in ledger.sites]
                for ledger in (self.model.ledger, self.model.evaluation_ledger)
            ],
            "auxiliary": self.auxiliary.state(),
            "gradients": self.gradients,
            "choices": self.choices.state_dict(),
            "done": asdict(self.done),
            "since": self.since,
            "probed": self.probed,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state."""
        for optimiser, theirs in zip(self.optimisers, state["optimisers"], strict=True):
            load_optimiser(optimiser, theirs)
        self.noise.set_state(state["noise"])
        # Ledgers are shared with the model and the meter, so they are changed in place.
        for ledger, spent in zip(
            (self.model.ledger, self.model.evaluation_ledger), state["spent"], strict=True
        ):
            ledger.spent.clear()
            ledger.spent.update(spent)
        for ledger, prices in zip(
            (self.model.ledger, self.model.evaluation_ledger), state["prices"], strict=True
        ):
            ledger.sites[:] = [
                replace(site, router=price)
                for site, price in zip(ledger.sites, prices, strict=True)
            ]
        self.auxiliary.load_state(state["auxiliary"])
        self.gradients = state["gradients"]
        self.choices.load_state_dict(state["choices"])
        self.done = Trained(**state["done"])
        self.since, self.probed = state["since"], state["probed"]

    def step(self, tokens: Tensor, tags: Tensor, documents: Tensor, progress: float) -> Tensor:
        """Train on `[batch, seq + 1]` tokens, charge the ledger, and return the loss.

        The loss is the language-modelling loss alone, nats per token. Of several ranks, each runs
        the model on its own rows, and all charge the whole batch.
        """
        with slicing():
            return self._step(tokens, tags, documents, progress)

    def _step(self, tokens: Tensor, tags: Tensor, documents: Tensor, progress: float) -> Tensor:
        tokens, tags = rows(tokens).to(self.device), rows(tags).to(self.device)
        run, logits = self._forward(tokens[:, :-1], tags[:, :-1], progress)
        # With a frozen model the backward pass ends at the first router.
        reached = (
            first_gradient(run.traces, len(self.model.decoder.layers))
            if self.model.frozen
            else None
        )
        token_loss = token_losses(logits, tokens[:, 1:])
        loss = token_loss.mean()
        traces = self._labelled(run, tokens[:, 1:], token_loss.detach(), documents)
        counts, num_tokens = whole_counts(run.counts), documents[:, 1:].numel()
        self.choices.note(traces, num_tokens, progress)
        auxiliary = self.auxiliary.total(traces)
        total = loss + auxiliary if auxiliary is not None else loss
        # On a frozen backbone, routers that learn without a gradient leave no gradient at all.
        if total.requires_grad:
            total.backward()
        average(self.model.decoder.parameters())
        forget_idle(self.model.decoder, counts)
        # The norms are taken before clipping and before the gradients are cleared.
        self.gradients = gradient_norms(self.model.decoder)
        self._update(progress)
        after = self._after_step(traces)
        self.model.ledger.charge_step(counts, num_tokens, self.auxiliary.flops or 0.0, reached)
        self.model.ledger.charge("router", "after_step", after)
        return mean(loss.detach())

    def _forward(
        self, tokens: Int[Tensor, "batch seq"], tags: Int[Tensor, "batch seq"], progress: float
    ) -> tuple[Pass, Float[Tensor, "batch seq vocab"]]:
        """Run the model with the choice of training, and return the pass and its logits."""
        run = make_pass(
            tokens,
            tags,
            selection="topk",
            generator=self.noise,
            progress=progress,
            decide=_for_batch(self.decide),
            history=self.oracle.history(progress),
        )
        with autocast(self.device, self.dtype):
            return run, self.model.decoder(run)

    def _labelled(
        self,
        run: Pass,
        targets: Int[Tensor, "batch seq"],
        token_loss: Float[Tensor, "batch seq"],
        documents: Int[Tensor, "whole_batch seq_and_target"],
    ) -> list[LayerTrace]:
        """Return the traces of the batch with the losses, utilities and labels that routers want.

        Args:
            run: the pass.
            targets: the next token of each token.
            token_loss: loss of each token.
            documents: document of each token of the whole batch.
        """
        documents = documents[:, :-1].to(self.device)
        told = self.supervisor.sequences(rows(documents), run.progress)
        self.oracle.label(run, targets, token_loss, self.done.steps, told)
        traces = whole_traces(run)
        # A router sees its loss only if it asks for it.
        for router, trace in zip(self.model.decoder.routers, traces, strict=True):
            if "token_loss" in router.needs:
                trace.token_loss = _at_site(gather(token_loss), trace)
        # Utility comes before labels, because labels may be made from utility.
        self.supervisor.label(traces, documents)
        return traces

    def _update(self, progress: float) -> None:
        # Each router is clipped by its own norm.
        clip = self.config.router.clip
        if clip is not None:
            for router in self.model.decoder.routers:
                if parameters := list(router.parameters()):
                    nn.utils.clip_grad_norm_(parameters, clip)
        # The schedule scales all learning rates alike.
        factor = trapezoid(progress, self.config.warmup, self.config.decay)
        for optimiser, peaks in zip(self.optimisers, self.peaks, strict=True):
            for group, peak in zip(optimiser.param_groups, peaks, strict=True):
                group["lr"] = peak * factor
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    @torch.no_grad()
    def _after_step(self, traces: list[LayerTrace]) -> float:
        """Run the updates of routers and their noise after a step, and return their FLOPs."""
        flops = 0.0
        for router, trace in zip(self.model.decoder.routers, traces, strict=True):
            if type(router).after_step is not Router.after_step:
                flops += count(lambda: router.after_step(trace)).total  # noqa: B023
            if router.noise is not None:
                flops += count(
                    partial(router.noise.after_step, trace.of_chosen(trace.plan.chosen))
                ).total
        return flops


def _for_batch(decide: Decide) -> Decide:
    """Return a function that asks for a plan and draws its noise for the rows of all ranks."""
    if world().size == 1:
        return decide

    def ask_rank(router: Router, inputs: RouterInput) -> RoutingPlan:
        with drawing(*inputs.tokens.shape):
            return decide(router, inputs)

    return ask_rank


def _at_site(values: Tensor, trace: LayerTrace) -> Tensor:
    """Return values of all tokens, `[batch, seq]`, at those that a site sees."""
    positions = trace.inputs.positions
    return values if positions.shape == values.shape else values.gather(1, positions)
