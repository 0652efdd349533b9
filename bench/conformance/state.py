"""Check the state of a router: no hidden state, no global randomness, exact resumption."""

import copy
import random
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from bench.backbone.passes import ask
from bench.conformance.check import demand, rule
from bench.conformance.life import content_digest
from bench.conformance.subject import BATCH_SIZE, SELECTIONS, Subject
from bench.evaluation.evaluate import evaluate
from bench.model.assemble import Model
from bench.routing.contract import Router, RouterInput, RoutingPlan

RESUME_STEPS = 3


def plan_digest(router: Router, inputs: RouterInput) -> str:
    """Return a digest of the plan that a router makes."""
    with torch.no_grad():
        plan: RoutingPlan = ask(router, inputs)
    return content_digest([plan.mask, plan.weight, plan.scores, plan.counts])


@rule(
    "Take random numbers from inputs.generator and pass it to every torch call that draws; use "
    "hash_noise where there is none."
)
def deterministic(subject: Subject) -> None:
    """The same inputs and noise give the same plan, and no method uses global random state."""
    # First the whole life of a model, then single plans under another global seed.
    touched = subject.life.drawn_from
    demand(not touched, "global random state as it was", f"that of {', '.join(touched)} changed")
    for selection in SELECTIONS:
        for router, inputs in zip(
            subject.trained.decoder.routers,
            subject.inputs(selection, model=subject.trained),
            strict=True,
        ):
            first = plan_digest(router, subject.fresh(inputs))
            with _other_randomness(subject.seed + 1):
                second = plan_digest(router, subject.fresh(inputs))
            demand(
                first == second,
                f"the same plan twice, {selection}",
                f"another plan in layer {router.spec.layer}",
            )


@contextmanager
def _other_randomness(seed: int) -> Generator[None]:
    """Give every global generator another seed for a while, and restore it afterwards."""
    states = np.random.get_state(), random.getstate()
    np.random.seed(seed)
    random.seed(seed)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        np.random.set_state(states[0])
        random.setstate(states[1])


@rule(
    "Register buffers for state that training changes (in `build`), and pass the inputs of an "
    "auxiliary loss through plan.extras."
)
def no_hidden_state(subject: Subject) -> None:
    """Training and evaluation change no attribute of a router that the state_dict does not save."""
    changed = subject.life.changed
    demand(
        not changed, "all state in parameters and buffers", f"changes in {', '.join(changed[:3])}"
    )


@rule(
    "Keep every count, schedule, table and running mean in a persistent buffer; read "
    "inputs.progress instead of counting steps."
)
def resumes_exactly(subject: Subject) -> None:
    """A fresh model that loads the state_dict trains on to the same weights and losses."""
    first, second = subject.assemble(), subject.assemble()
    subject.train(first, steps=RESUME_STEPS)
    missing = second.decoder.load_state_dict(
        copy.deepcopy(first.decoder.state_dict()), strict=False
    )
    strange = [*missing.missing_keys, *missing.unexpected_keys]
    demand(
        not strange, "the same names in every state_dict", f"{', '.join(strange[:3])} in one only"
    )
    # The first model goes on in memory, the second from the saved state.
    ends = [_go_on(subject, model) for model in (first, second)]
    different = sorted(name for name in ends[0] if ends[0][name] != ends[1][name])
    demand(
        not different,
        "equal weights, buffers and losses after resuming",
        f"other ones in {', '.join(different[:3])}",
    )


def _go_on(subject: Subject, model: Model) -> dict[str, str]:
    subject.train(model, steps=RESUME_STEPS, seed=subject.seed + 1, fit=False)
    found = {name: content_digest(value) for name, value in model.decoder.state_dict().items()}
    return found | {
        "losses": content_digest(evaluate(model, subject.windows(8), batch_size=8).nats)
    }


@rule("Work on copies: x + y instead of x += y, torch.where instead of assignment to a slice.")
def inputs_are_left_alone(subject: Subject) -> None:
    """A router changes neither its inputs nor the trace of the routed layer before."""
    changed: set[str] = set()

    def decide(router: Router, inputs: RouterInput) -> RoutingPlan:
        # Copy everything that the router can reach, and compare after its answer.
        before = {name: value.clone() for name, value in _visible(inputs).items()}
        plan = ask(router, inputs)
        changed.update(
            name
            for name, value in _visible(inputs).items()
            if content_digest(value) != content_digest(before[name])
        )
        return plan

    model = subject.trained
    for selection in SELECTIONS:
        with torch.no_grad():
            subject.run(model, *subject.batch(BATCH_SIZE), selection, decide=decide)
        demand(
            not changed,
            f"inputs as they were, {selection}",
            f"{', '.join(sorted(changed))} changed",
        )


def _visible(inputs: RouterInput) -> dict[str, Tensor]:
    """Return all tensors that a router can reach, by name."""
    found = {name: value for name, value in vars(inputs).items() if isinstance(value, Tensor)}
    before = inputs.previous
    if before is not None:
        found |= {
            f"previous.{name}": value
            for name, value in _visible(replace(before.inputs, previous=None)).items()
        }
        found |= {
            f"previous.plan.{name}": value
            for name, value in vars(before.plan).items()
            if isinstance(value, Tensor)
        }
        found["previous.update"] = before.update
    return found
