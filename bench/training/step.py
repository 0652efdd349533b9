"""Do one training step, and hold the state that the next step depends on."""

from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from bench.backbone.decoder import device_of
from bench.backbone.passes import Decide, Pass, ask, autocast, make_pass
from bench.config.suite import TrainConfig
from bench.flops.counter import count
from bench.flops.ledger import first_gradient
from bench.flops.meter import Meter
from bench.model.assemble import Model
from bench.routing.contract import LayerTrace, Router
from bench.training.auxiliary import active_losses, has_target
from bench.training.choices import Choices
from bench.training.optim import (
    Muon,
    gradient_norms,
    muon_parameters,
    newton_schulz_flops,
    trapezoid,
)
from bench.training.supervision import Supervisor
from bench.training.utility import Oracle


@dataclass
class Trained:
    """The result of training, without the weights, which are in the model.

    Attributes:
        steps: optimiser steps.
        tokens: tokens seen.
        seconds: wall-clock time of the steps.
        optimizer_flops: FLOPs of the optimiser, shown and never charged.
        auxiliary: last mean of each auxiliary loss.
        gradients: gradient norms in the step before each probe, `[probe][site][router, paths]`.
        shares: share of all tokens that chose each path at the end of training, `[site][path]`;
            empty where choices are unknown.
        curriculum: for each ordered window, rank correlation of complexity and loss; empty without
            a curriculum.
    """

    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    optimizer_flops: float = 0.0
    auxiliary: dict[str, float] = field(default_factory=dict[str, float])
    gradients: list[list[list[float]]] = field(default_factory=list[list[list[float]]])
    shares: list[list[float]] = field(default_factory=list[list[float]])
    curriculum: list[float] = field(default_factory=list[float])


class Stepper:
    """The state of a training run without the model: optimisers, noise, prices and progress."""

    def __init__(
        self,
        model: Model,
        config: TrainConfig,
        lr_scale: float,
        dtype: torch.dtype,
        noise: torch.Generator,
        oracle: Oracle,
        supervisor: Supervisor,
    ) -> None:
        self.model, self.config, self.dtype, self.noise = model, config, dtype, noise
        self.oracle, self.supervisor = oracle, supervisor
        decoder = model.decoder
        self.device = device_of(decoder)
        matrices = [p for p in muon_parameters(decoder, decoder.routers) if p.requires_grad]
        self.muon_flops = newton_schulz_flops(matrices)
        # AdamW has two groups: embedding and head, and the routers with their own rate.
        taken = {id(p) for p in matrices}
        in_routers = {id(p) for router in decoder.routers for p in router.parameters()}
        rest = [
            p for p in decoder.parameters() if p.requires_grad and id(p) not in taken | in_routers
        ]
        groups = [{"params": rest, "lr": config.adam_lr * lr_scale}]
        if in_routers:
            routers = [p for router in decoder.routers for p in router.parameters()]
            rate = config.adam_lr * lr_scale * config.router.lr_ratio
            groups.append(
                {"params": routers, "lr": rate, "weight_decay": config.router.weight_decay}
            )
        adam = torch.optim.AdamW(
            groups, betas=(0.9, 0.95), weight_decay=0.0, fused=False, foreach=True
        )
        self.optimisers: list[torch.optim.Optimizer] = [
            Muon(matrices, config.muon_lr * lr_scale, low=config.muon_dtype == "bfloat16"),
            adam,
        ]
        self.peaks = [
            [group["lr"] for group in optimiser.param_groups] for optimiser in self.optimisers
        ]
        # None until the auxiliary losses are priced, which happens at the next step.
        self.auxiliary_flops: float | None = None
        self.priced: list[str] = []
        self.last_auxiliary: dict[str, Tensor] = {}
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
            self.auxiliary_flops = None

    def state_dict(self) -> dict[str, Any]:
        """Return the state that the next step depends on, without the weights."""
        return {
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "noise": self.noise.get_state(),
            "spent": [
                dict(ledger.spent) for ledger in (self.model.ledger, self.model.evaluation_ledger)
            ],
            "prices": [
                [site.router for site in ledger.sites]
                for ledger in (self.model.ledger, self.model.evaluation_ledger)
            ],
            "auxiliary": (self.auxiliary_flops, self.priced, self.last_auxiliary),
            "gradients": self.gradients,
            "choices": self.choices.state_dict(),
            "done": asdict(self.done),
            "since": self.since,
            "probed": self.probed,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state."""
        for optimiser, theirs in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(theirs)
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
        self.auxiliary_flops, self.priced, self.last_auxiliary = state["auxiliary"]
        self.gradients = state["gradients"]
        self.choices.load_state_dict(state["choices"])
        self.done = Trained(**state["done"])
        self.since, self.probed = state["since"], state["probed"]

    def step(self, tokens: Tensor, tags: Tensor, documents: Tensor, progress: float) -> Tensor:
        """Train on `[batch, seq + 1]` tokens, charge the ledger, and return the loss.

        The loss is the language-modelling loss alone, nats per token.
        """
        tokens, tags = tokens.to(self.device), tags.to(self.device)
        run = make_pass(
            tokens[:, :-1],
            tags[:, :-1],
            selection="topk",
            generator=self.noise,
            progress=progress,
            decide=self.decide,
        )
        run.history = self.oracle.history(progress)
        with autocast(self.device, self.dtype):
            logits = self.model.decoder(run)
        # With a frozen model the backward pass ends at the first router.
        reached = (
            first_gradient(run.traces, len(self.model.decoder.layers))
            if self.model.frozen
            else None
        )
        token_loss = F.cross_entropy(
            logits.float().flatten(0, 1), tokens[:, 1:].flatten(), reduction="none"
        )
        loss = token_loss.mean()
        self._label(run, tokens[:, 1:], token_loss.detach().view_as(run.tokens), documents)
        self.choices.note(run.traces, run.tokens.numel(), progress)
        auxiliary = self._auxiliary(run.traces)
        total = loss + auxiliary if auxiliary is not None else loss
        # On a frozen backbone, routers that learn without a gradient leave no gradient at all.
        if total.requires_grad:
            total.backward()
        # The norms are taken before clipping and before the gradients are cleared.
        self.gradients = gradient_norms(self.model.decoder)
        self._update(progress)
        after = self._after_step(run.traces)
        self.model.ledger.charge_step(
            run.counts, run.tokens.numel(), self.auxiliary_flops or 0.0, reached
        )
        self.model.ledger.charge("router", "after_step", after)
        return loss.detach()

    def _label(
        self,
        run: Pass,
        targets: Int[Tensor, "batch seq"],
        token_loss: Float[Tensor, "batch seq"],
        documents: Int[Tensor, "batch seq_and_target"],
    ) -> None:
        """Give the traces of a pass the losses, utilities and labels that routers ask for."""
        # A router sees its loss only if it asks for it.
        for router, trace in zip(self.model.decoder.routers, run.traces, strict=True):
            if "token_loss" in router.needs:
                trace.token_loss = _at_site(token_loss, trace)
        # Utility comes before labels, because labels may be made from utility.
        documents = documents[:, :-1].to(self.device)
        told = self.supervisor.sequences(documents, run.progress)
        self.oracle.label(run, targets, token_loss, self.done.steps, told)
        self.supervisor.label(run.traces, documents)

    def _auxiliary(self, traces: list[LayerTrace]) -> Tensor | None:
        """Add up the weighted auxiliary losses, each a sum or mean over the layers that have it.

        They are priced at the first step, at metered steps, and when their set changes.
        """
        # Losses that are on, at the layers that have their targets in this step.
        due = [
            (name, term, trace)
            for losses, trace in zip(self.model.losses, traces, strict=True)
            for name, term in active_losses(losses, trace.inputs.progress).items()
            if has_target(term.loss, trace)
        ]
        if (names := sorted(name for name, _, _ in due)) != self.priced:
            self.auxiliary_flops, self.priced = None, names
        values: dict[str, list[Tensor]] = {}
        flops = 0.0
        for name, term, trace in due:
            if self.auxiliary_flops is None:
                # Count a separate call without gradients, which charges the forward pass alone.
                with torch.no_grad():
                    flops += count(lambda: term.loss.compute(trace)).total  # noqa: B023
            values.setdefault(name, []).append(term.weight * term.loss.compute(trace))
        if self.auxiliary_flops is None:
            self.auxiliary_flops = flops
        if not values:
            return None
        over = {name: term.loss.layers for name, term, _ in due}
        totals = {
            name: torch.stack(found).sum() if over[name] == "sum" else torch.stack(found).mean()
            for name, found in values.items()
        }
        self.last_auxiliary = {name: value.detach() for name, value in totals.items()}
        return torch.stack(list(totals.values())).sum()

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


def _at_site(values: Tensor, trace: LayerTrace) -> Tensor:
    """Return values of all tokens, `[batch, seq]`, at those that a site sees."""
    positions = trace.inputs.positions
    return values if positions.shape == values.shape else values.gather(1, positions)
