"""Checks of what a router keeps in mind, and of where it keeps it."""

import copy
import random
import sys
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from bench.backbone.passes import ask
from bench.conformance.check import demand, rule
from bench.conformance.memory import changed_places, digest, hidden_state
from bench.conformance.plans import SELECTIONS
from bench.conformance.subject import Subject
from bench.evaluation.calibrate import calibrate
from bench.evaluation.evaluate import evaluate
from bench.model.assemble import Model
from bench.routing.contract import Router, RouterInput, RoutingPlan

RESUME_STEPS = 3
THREAD_PROBE_SECONDS = 0.05


def plan_digest(router: Router, inputs: RouterInput) -> str:
    """Digest of the plan that a router makes."""
    with torch.no_grad():
        plan: RoutingPlan = ask(router, inputs)
    return digest([plan.mask, plan.weight, plan.scores, plan.counts])


@rule(
    "Take random numbers from inputs.generator and pass it to every torch call that draws; use hash_noise where there is none."
)
def deterministic(subject: Subject) -> None:
    """The same inputs and noise give the same plan, whatever the global random state, which no
    method touches.
    """
    before = _global_randomness()
    subject.short_life()
    touched = [name for name, state in _global_randomness().items() if state != before[name]]
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


def _global_randomness() -> dict[str, str]:
    """Digest of the state of each global generator.

    A type checker, where one is at work, draws from Python's own.
    """
    states: dict[str, Any] = {"torch": torch.get_rng_state(), "NumPy": np.random.get_state()}
    if "beartype" not in sys.modules:
        states["Python"] = random.getstate()
    return {name: digest(state) for name, state in states.items()}


@contextmanager
def _other_randomness(seed: int) -> Generator[None]:
    """Seed every global generator anew for a while.

    That of `random` may be drawn from meanwhile, as type checkers do.
    """
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
    "Compute the plan anew at every call; keep no cache keyed by `id`, address or content, and count no calls."
)
def plan_depends_on_inputs_alone(subject: Subject) -> None:
    """A call in between, or other content in the same tensors, does not change what a router
    decides.
    """
    one, two = (subject.batch(4, stream) for stream in ("one", "two"))
    for selection in SELECTIONS:
        with torch.no_grad():
            ours, others = (
                [trace.inputs for trace in subject.run(subject.trained, *batch, selection)[1]]
                for batch in (one, two)
            )
        for router, first, second in zip(
            subject.trained.decoder.routers, ours, others, strict=True
        ):
            first, second = _alone(first), _alone(second)
            where = f"in layer {router.spec.layer}, {selection}"
            expected = (
                plan_digest(router, subject.fresh(first)),
                plan_digest(copy.deepcopy(router), subject.fresh(second)),
            )
            demand(
                plan_digest(router, subject.fresh(first)) == expected[0],
                f"the same plan after another call {where}",
                "another plan",
            )
            for name, value in vars(first).items():
                if isinstance(value, Tensor):
                    getattr(first, name).copy_(getattr(second, name))
            demand(
                plan_digest(router, subject.fresh(first)) == expected[1],
                f"a plan for what the tensors hold now {where}",
                "a stale plan",
            )


def _alone(inputs: RouterInput) -> RouterInput:
    """Copies of the inputs, without the trace of the layer before."""
    copies = {
        name: value.clone() for name, value in vars(inputs).items() if isinstance(value, Tensor)
    }
    return replace(inputs, previous=None, **copies)


@rule(
    "Train by losses and through the graph; the backbone, the paths and other routers are not a router's to write to."
)
def leaves_the_model_alone(subject: Subject) -> None:
    """No method of a router changes parameters or buffers of the model that are not its own."""
    model = subject.assemble()
    changed: set[str] = set()

    def watched(router: Router, call: Callable[..., Any]) -> Callable[..., Any]:
        own = {id(tensor) for tensor in (*router.parameters(), *router.buffers())}
        foreign = {
            name: t
            for name, t in model.decoder.state_dict(keep_vars=True).items()
            if id(t) not in own
        }

        def watch(*arguments: Any) -> Any:
            before = {name: t.detach().clone() for name, t in foreign.items()}
            try:
                return call(*arguments)
            finally:
                changed.update(
                    name for name, t in foreign.items() if not torch.equal(t, before[name])
                )

        return watch

    with ExitStack() as stack:
        for router in model.decoder.routers:
            for method in ("forward", "fit", "after_step"):
                stack.enter_context(
                    mock.patch.object(router, method, watched(router, getattr(router, method)))
                )
        subject.train(model, steps=3)
        evaluate(model, subject.windows(8), batch_size=8)
    demand(
        not changed,
        "the rest of the model as it was",
        f"changes in {', '.join(sorted(changed)[:3])}",
    )


@rule(
    "Register buffers for state that training changes (in `build`), and pass what an auxiliary loss needs through plan.extras."
)
def no_hidden_state(subject: Subject) -> None:
    """Training and evaluation change nothing that the state_dict does not save.

    Attributes, class attributes, global variables.
    """
    model = subject.assemble()
    before = [hidden_state(router) for router in model.decoder.routers]
    subject.train(
        model, steps=3, seed=subject.seed + 1000
    )  # text of its own: what other checks showed may be remembered already
    windows = subject.windows(8, "hidden state")
    calibrate(model, windows, 1.0)
    evaluate(model, windows, batch_size=8)
    changed = {
        place
        for router, state in zip(model.decoder.routers, before, strict=True)
        for place in changed_places(state, hidden_state(router))
    }
    demand(
        not changed,
        "all state in parameters and buffers",
        f"changes in {', '.join(sorted(changed)[:3])}",
    )


@rule(
    "Keep every count, schedule, table and running mean in a persistent buffer; read inputs.progress instead of counting steps."
)
def resumes_exactly(subject: Subject) -> None:
    """Training goes on from the state_dict alone.

    A fresh model that loads it ends with the same weights and losses.
    """
    first, second = subject.assemble(), subject.assemble()
    subject.train(first, steps=RESUME_STEPS)
    missing = second.decoder.load_state_dict(
        copy.deepcopy(first.decoder.state_dict()), strict=False
    )
    strange = [*missing.missing_keys, *missing.unexpected_keys]
    demand(
        not strange, "the same names in every state_dict", f"{', '.join(strange[:3])} in one only"
    )
    ends = [_go_on(subject, model) for model in (first, second)]
    different = sorted(name for name in ends[0] if ends[0][name] != ends[1][name])
    demand(
        not different,
        "equal weights, buffers and losses after resuming",
        f"other ones in {', '.join(different[:3])}",
    )


def _go_on(subject: Subject, model: Model) -> dict[str, str]:
    subject.train(model, steps=RESUME_STEPS, seed=subject.seed + 1, fit=False)
    found = {name: digest(value) for name, value in model.decoder.state_dict().items()}
    return found | {"losses": digest(evaluate(model, subject.windows(8), batch_size=8).nats)}


@rule("Compute in the thread that calls: what another one does is not counted.")
def works_on_one_thread(subject: Subject) -> None:
    """While a router decides, no other thread of the process computes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        pairs = list(
            zip(
                subject.trained.decoder.routers,
                subject.inputs("causal", size=64, model=subject.trained),
                strict=True,
            )
        )
        everywhere, here = time.process_time(), time.thread_time()
        while time.thread_time() - here < THREAD_PROBE_SECONDS:
            for router, inputs in pairs:
                with torch.no_grad():
                    ask(router, inputs)
        here, everywhere = time.thread_time() - here, time.process_time() - everywhere
    finally:
        torch.set_num_threads(threads)
    demand(
        everywhere < 1.5 * here,
        "all work on the calling thread",
        f"{everywhere:.3f} s of CPU, {here:.3f} s of them here",
    )
