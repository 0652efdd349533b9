"""Check the plans that a router makes."""

import inspect
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bench.backbone.passes import ask, autocast
from bench.conformance.check import Exempt, demand, rule
from bench.conformance.subject import (
    BATCH_SIZE,
    DECODER,
    SELECTIONS,
    SEQ_LEN,
    Subject,
)
from bench.flops.meter import counts_fault, plan_fault
from bench.model.blueprint import layers_used
from bench.model.build_routers import first_plans
from bench.rng import generator
from bench.routing.capacity import tokens_kept
from bench.routing.contract import LayerTrace, Router, RouterInput, RoutingPlan, Selection

MOMENTS = 32
"""Moments of training at which capacity is checked, one in each of as many equal parts."""
BFLOAT16_DIFFERENT = 0.05
"""Share of choices that bfloat16 may turn, without ties of scores."""
BFLOAT16_STEP = 2**-8
"""A score this near its threshold, relative to the largest score, is a tie.

Bfloat16 has 8 bits of precision.
"""
BFLOAT16_TIES = 0.25
"""Share of tokens that may be ties. With more, the comparison shows nothing."""
BFLOAT16_MERGE = 0.05


def traces_of(subject: Subject) -> Iterator[tuple[Selection, LayerTrace]]:
    """Yield the trace of every routed site on random text, in training and in evaluation."""
    for selection in SELECTIONS:
        with torch.no_grad():
            traces = subject.run(subject.trained, *subject.batch(BATCH_SIZE), selection)[1]
        for trace in traces:
            yield selection, trace


@torch.no_grad()
def plans_of(subject: Subject) -> Iterator[tuple[Router, RouterInput, RoutingPlan]]:
    """Ask the routers of all used layers for plans, outside of any model, without running them."""
    used = layers_used(subject.probe, subject.blueprint.routed_layers)
    routers = [subject.build_layer(layer) for layer in used]
    training: dict[str, Any] = {"selection": "topk"}
    # Evaluation has no generator and happens at the end of training.
    evaluation: dict[str, Any] = {"selection": "causal", "generator": None, "progress": 1.0}
    for changes in (training, evaluation):
        yield from first_plans(subject.blueprint, routers, batch=BATCH_SIZE, **changes)


def valid_in(trace: LayerTrace) -> Bool[Tensor, "batch seq"]:
    """Mark the tokens of a trace whose plan is run; a block fills shorter sequences up."""
    valid = trace.inputs.valid
    return torch.ones_like(trace.plan.mask[..., 0]) if valid is None else valid


def place_of(router: Router) -> str:
    """Return the router's `forward` with its file and line."""
    forward = inspect.unwrap(type(router).forward)
    code = getattr(forward, "__code__", None)
    if code is None:
        return f"{type(router).__name__}.forward"
    return f"{code.co_qualname} ({Path(code.co_filename).name}:{code.co_firstlineno})"


@rule(
    "mask is bool and weight floating point, both [batch, seq, path] with a path a name in "
    "`paths`; look for 0/0 and log 0.",
    essential=True,
)
def plan_is_well_formed(subject: Subject) -> None:
    """Masks, weights and scores have the shapes and types of the contract, and are finite.

    Plans are checked before any of them is run.
    """
    for router, inputs, plan in plans_of(subject):
        where = f"from {place_of(router)} in layer {router.spec.layer}, {inputs.selection}"
        sound = isinstance(plan, RoutingPlan)  # pyright: ignore[reportUnnecessaryIsInstance]
        demand(sound, f"a RoutingPlan {where}", type(plan).__name__)
        shape = (*inputs.tokens.shape, len(router.paths.names))
        wrong = plan_fault(plan, shape)
        if wrong is not None:
            demand(False, f"{wrong[0]} {where}", wrong[1])
        for name, part in (("weight", plan.weight), ("scores", plan.scores)):
            if part is None:
                continue
            demand(
                tuple(part.shape) == shape, f"{name} of shape {shape} {where}", tuple(part.shape)
            )
            demand(
                part.is_floating_point(), f"floating-point numbers in {name} {where}", part.dtype
            )
            # The weight of a path that does not run is never read.
            used = part if name == "scores" else part[plan.mask]
            demand(bool(used.isfinite().all()), f"finite {name} {where}", "nan or infinity")


@rule(
    "Leave `counts` out unless the numbers are fixed beforehand: the dispatcher runs "
    "them, and the ledger charges the mask.",
    essential=True,
)
def counts_match_mask(subject: Subject) -> None:
    """A plan that states its counts has a mask with exactly those."""
    for router, inputs, plan in plans_of(subject):
        wrong = counts_fault(plan)
        where = f"from {place_of(router)} in layer {router.spec.layer}, {inputs.selection}"
        if wrong is not None:
            demand(False, f"{wrong[0]} {where}", wrong[1])


@rule("Give every token a path and those in `always`, or declare `allows_none = True`.")
def every_token_has_a_path(subject: Subject) -> None:
    """Each token takes the paths that all take, and at least one, unless none is allowed."""
    for selection, trace in traces_of(subject):
        for path in map(trace.paths.names.index, trace.paths.always):
            without = int((~trace.plan.mask[..., path]).sum())
            name = trace.paths.names[path]
            demand(
                without == 0,
                f"{name!r}, which is in `always`, for every token in layer {trace.layer}, "
                f"{selection}",
                f"{without} tokens without",
            )
    if subject.probe.allows_none:
        raise Exempt("the router declares allows_none")
    for selection, trace in traces_of(subject):
        none = int((~trace.plan.mask.any(-1) & valid_in(trace)).sum())
        demand(
            none == 0,
            f"a path for every token in layer {trace.layer}, {selection}",
            f"{none} tokens without",
        )


@rule(
    "Use bench.routing.upgrade, which keeps spec.capacity of each sequence in training. State "
    "other shares of layers with `relative_share`.",
    waivable=True,
)
def capacity_is_kept_in_training(subject: Subject) -> None:
    """In training a router with a base keeps its capacity, within one token per sequence."""
    gates = [router for router in subject.trained.decoder.routers if router.paths.base is not None]
    if not gates:
        raise Exempt("without a base there is no capacity: training is charged as it comes")
    if subject.probe.trains_dense or subject.is_bracket:
        raise Exempt(
            "a bracket, or a router that declares trains_dense, is charged for all it runs"
        )
    draws = torch.arange(MOMENTS) + torch.rand(
        MOMENTS, generator=generator(subject.seed, "moments")
    )
    pairs = list(
        zip(
            subject.trained.decoder.routers,
            subject.inputs("topk", model=subject.trained),
            strict=True,
        )
    )
    # A router may change its choice with progress, so capacity is checked throughout training.
    for progress in (0.0, *(draws / MOMENTS).tolist(), 1.0):
        for router, inputs in pairs:
            if router not in gates:
                continue
            with torch.no_grad():
                plan: RoutingPlan = ask(router, replace(subject.fresh(inputs), progress=progress))
            length = inputs.tokens.shape[1]
            expected = tokens_kept(router.spec.capacity, length)
            seen = plan.mask[..., 1].float().sum(1)
            limit = f"{expected} ± 1 of {length} tokens upgraded at progress {progress:.2f}"
            demand(bool((seen - expected).abs().max() <= 1), limit, seen.tolist())


@rule("Take shapes from the inputs, never from constants or from the spec.")
def any_length_and_batch(subject: Subject) -> None:
    """Sequences of 1, 7 or the largest length, alone or together, give finite predictions."""
    for batch, seq_len in ((1, 1), (1, SEQ_LEN), (3, 7), (2, DECODER.max_seq_len)):
        for selection in SELECTIONS:
            with torch.no_grad():
                logits, _ = subject.run(
                    subject.trained, *subject.batch(batch, seq_len=seq_len), selection
                )
            where = f"for {batch} sequences of {seq_len}, {selection}"
            demand(
                logits.shape == (batch, seq_len, DECODER.vocab_size),
                f"logits for every token {where}",
                tuple(logits.shape),
            )
            demand(bool(logits.isfinite().all()), f"finite logits {where}", "nan or infinity")


@rule(
    "Compute in the type of `inputs.hidden`; do not hash or count in floating point.", waivable=True
)
def bfloat16_agrees(subject: Subject) -> None:
    """Under bfloat16 the plans are those of float32, except for tokens near a tie."""
    traces = [trace for selection, trace in traces_of(subject) if selection == "causal"]
    for router, trace in zip(subject.trained.decoder.routers, traces, strict=True):
        with torch.no_grad(), autocast(torch.device("cpu"), torch.bfloat16):
            plan: RoutingPlan = ask(router, trace.inputs)
        if plan.merge is not None and trace.plan.merge is not None:
            # With merging, the mask only books a token on the heaviest expert.
            off = float((plan.merge.float() - trace.plan.merge).abs().max())
            demand(
                off <= BFLOAT16_MERGE,
                f"merging weights within {BFLOAT16_MERGE:g} in layer {trace.layer}",
                f"{off:.2g}",
            )
            continue
        where, tied = f"in layer {trace.layer}", _near_threshold(router, trace.plan)
        ties = float(tied.float().mean())
        demand(
            ties <= BFLOAT16_TIES,
            f"at most {BFLOAT16_TIES:.0%} of tokens with scores that bfloat16 cannot tell apart "
            f"{where}",
            f"{ties:.1%}",
        )
        # Tokens near a tie may go either way; all others must keep their paths.
        kept = valid_in(trace) & ~tied
        different = float((_moved(plan.mask, trace.plan.mask) * kept).mean())
        limit = f"at most {BFLOAT16_DIFFERENT:.0%} of choices on other paths {where}"
        demand(different <= BFLOAT16_DIFFERENT, limit, f"{different:.1%}, and {ties:.1%} near ties")
        finite = plan.weight is None or bool(plan.weight[plan.mask].isfinite().all())
        demand(finite, "finite weights in bfloat16", "nan or infinity")


def _moved(
    one: Bool[Tensor, "batch seq path"], other: Bool[Tensor, "batch seq path"]
) -> Float[Tensor, "batch seq"]:
    """Return the share of each token's paths that differ between two plans.

    A token with four experts has four choices, and rounding may turn one of them.
    """
    moved = torch.maximum((one & ~other).sum(-1), (other & ~one).sum(-1))
    return moved / torch.maximum(one.sum(-1), other.sum(-1)).clamp(min=1)


def _near_threshold(router: Router, plan: RoutingPlan) -> Bool[Tensor, "batch seq"]:
    """Mark the tokens whose score is so near the threshold that a step of bfloat16 may decide."""
    if (
        plan.scores is None
        or router.knob is None
        or router.knob.dim()
        or plan.scores.shape[-1] != 2
    ):
        return torch.zeros_like(plan.mask[..., 0])
    # A knob moves the threshold: the upgrade is taken where the score plus the knob is above 0.
    scores = plan.scores.float()
    return (
        scores[..., 1] - scores[..., 0] + router.knob
    ).abs() <= BFLOAT16_STEP * scores.abs().max()
