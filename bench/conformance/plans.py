"""Checks of the plans that a router makes."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from jaxtyping import Bool
from torch import Tensor

from bench.backbone.passes import ask, autocast
from bench.conformance.check import Exempt, demand, rule
from bench.conformance.memory import digest
from bench.conformance.subject import BATCH_SIZE, DECODER, SEQ_LEN, Subject
from bench.flops.ledger import SiteCost
from bench.rng import generator
from bench.routing.contract import LayerTrace, Router, RouterInput, RoutingPlan, Selection
from bench.routing.select import tokens_kept

SELECTIONS: tuple[Selection, ...] = ("topk", "causal")
MOMENTS = 32
"""Of training at which capacity is looked at, one in each part, so that no stay of a sixteenth of
it escapes.
"""
BFLOAT16_DIFFERENT = 0.05
"""Share of tokens that bfloat16 may decide otherwise, ties by score left out."""
BFLOAT16_STEP = 2**-8
"""A score this near its threshold, relative to the largest, is a tie.

Bfloat16 has 8 bits of precision.
"""
BFLOAT16_TIES = 0.25
"""Share of tokens that may be ties; where more are, nothing is shown."""
BFLOAT16_MERGE = 0.05


def traces_of(subject: Subject) -> Iterator[tuple[Selection, LayerTrace]]:
    """Every routed site of the trained model on random text, in training and in evaluation."""
    for selection in SELECTIONS:
        with torch.no_grad():
            traces = subject.run(subject.trained, *subject.batch(BATCH_SIZE), selection)[1]
        for trace in traces:
            yield selection, trace


@rule(
    "mask is bool and weight floating point, both [batch, seq, path] with a path a name in `paths`; look for 0/0 and log 0."
)
def plan_is_well_formed(subject: Subject) -> None:
    """Masks, weights and scores have the shapes and types of the contract, and are finite."""
    for selection, trace in traces_of(subject):
        shape = (*trace.inputs.tokens.shape, len(trace.paths.names))
        plan, where = trace.plan, f"in layer {trace.layer}, {selection}"
        demand(plan.mask.dtype is torch.bool, f"a bool mask {where}", plan.mask.dtype)
        parts = {"mask": plan.mask, "weight": plan.weight, "scores": plan.scores}
        for name, part in parts.items():
            if part is None:
                continue
            demand(
                tuple(part.shape) == shape, f"{name} of shape {shape} {where}", tuple(part.shape)
            )
            used = part if name == "scores" else part[plan.mask]
            demand(bool(used.isfinite().all()), f"finite {name} {where}", "nan or infinity")
            demand(
                name == "mask" or part.is_floating_point(),
                f"floating-point {name} {where}",
                part.dtype,
            )


@rule("Give every token a path, or declare `allows_none = True`.")
def every_token_has_a_path(subject: Subject) -> None:
    """Each token takes at least one path, unless the router declares that it may take none."""
    if subject.probe.allows_none:
        raise Exempt("the router declares allows_none")
    for selection, trace in traces_of(subject):
        none = int((~trace.plan.mask.any(-1)).sum())
        demand(
            none == 0,
            f"a path for every token in layer {trace.layer}, {selection}",
            f"{none} tokens without",
        )


@rule(
    "Leave `counts` out unless the numbers are fixed beforehand: the dispatcher runs what they say, the ledger charges what the mask says."
)
def counts_match_mask(subject: Subject) -> None:
    """A plan that states its counts has a mask with exactly those."""
    for selection, trace in traces_of(subject):
        if trace.plan.counts is not None:
            seen = trace.plan.mask.sum(1).unique(dim=0).tolist()
            demand(
                seen == [list(trace.plan.counts)],
                f"{list(trace.plan.counts)} tokens on each path, {selection}",
                f"masks with {seen}",
            )


@rule(
    "Use bench.routing.upgrade, which keeps spec.capacity of each sequence in training.",
    waivable=True,
)
def capacity_is_kept_in_training(subject: Subject) -> None:
    """In training a router with a base upgrades the share of tokens that the budget gave it, within
    one token a sequence.
    """
    if subject.probe.paths.base is None:
        raise Exempt("without a base there is no capacity: training is charged as it comes")
    if subject.probe.trains_dense or subject.is_bracket:
        raise Exempt(
            "a bracket, or a router that declares trains_dense, is charged for what it runs"
        )
    expected = tokens_kept(subject.trained.solution.capacity, SEQ_LEN)
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
    for progress in (0.0, *(draws / MOMENTS).tolist(), 1.0):
        for router, inputs in pairs:
            with torch.no_grad():
                plan: RoutingPlan = ask(router, replace(subject.fresh(inputs), progress=progress))
            seen = plan.mask[..., 1].float().sum(1)
            limit = f"{expected} ± 1 of {SEQ_LEN} tokens upgraded at progress {progress:.2f}"
            demand(bool((seen - expected).abs().max() <= 1), limit, seen.tolist())


@rule("Take shapes from the inputs, never from constants or from the spec.")
def any_length_and_batch(subject: Subject) -> None:
    """Sequences of 1, 7 or the greatest length, alone or together, give finite predictions."""
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
    """Under bfloat16 the plans are those of float32, but for tokens near a tie."""
    traces = [trace for selection, trace in traces_of(subject) if selection == "causal"]
    for router, trace in zip(subject.trained.decoder.routers, traces, strict=True):
        with torch.no_grad(), autocast(torch.device("cpu"), torch.bfloat16):
            plan: RoutingPlan = ask(router, trace.inputs)
        if (
            plan.merge is not None and trace.plan.merge is not None
        ):  # the mask only books a token on the heaviest expert
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
            f"at most {BFLOAT16_TIES:.0%} of tokens with scores that bfloat16 cannot tell apart {where}",
            f"{ties:.1%}",
        )
        different = float(((plan.mask != trace.plan.mask).any(-1) & ~tied).float().mean())
        limit = f"at most {BFLOAT16_DIFFERENT:.0%} of tokens on other paths {where}"
        demand(different <= BFLOAT16_DIFFERENT, limit, f"{different:.1%}, and {ties:.1%} near ties")
        finite = plan.weight is None or bool(plan.weight[plan.mask].isfinite().all())
        demand(finite, "finite weights in bfloat16", "nan or infinity")


def _near_threshold(router: Router, plan: RoutingPlan) -> Bool[Tensor, "batch seq"]:
    """Tokens whose upgrade is scored so near the threshold, in float32, that a step of bfloat16 may
    decide it.
    """
    if (
        plan.scores is None
        or router.knob is None
        or router.knob.dim()
        or plan.scores.shape[-1] != 2
    ):
        return torch.zeros_like(plan.mask[..., 0])
    scores = plan.scores.float()
    return (
        scores[..., 1] - scores[..., 0] + router.knob
    ).abs() <= BFLOAT16_STEP * scores.abs().max()


@rule("Compare scores with -knob, as bench.routing.upgrade does, so that spending rises with it.")
def knob_raises_spending(subject: Subject) -> None:
    """The FLOPs that causal evaluation spends never fall as the knob rises, and it reaches both
    ways.
    """
    model = subject.assemble()
    for router, site, inputs in zip(
        model.decoder.routers, model.evaluation_ledger.sites, subject.inputs("causal"), strict=True
    ):
        if router.knob is None:
            raise Exempt("the router has no knob")
        spends: list[float] = []
        for value in (-1e6, -1.0, -0.1, 0.0, 0.1, 1.0, 1e6):
            router.knob.fill_(value)
            with torch.no_grad():
                spends.append(_spend(site, ask(router, inputs)))
        demand(
            spends == sorted(spends),
            "spending that rises with the knob",
            [round(s) for s in spends],
        )
        demand(
            spends[0] < spends[-1],
            "a knob that changes spending",
            f"{spends[0]:.0f} FLOPs a token at either end",
        )


def _spend(site: SiteCost, plan: RoutingPlan) -> float:
    return site.active(plan.mask.sum(1)) / plan.mask[..., 0].numel()


@rule("Work on copies: x + y instead of x += y, torch.where instead of assignment to a slice.")
def inputs_are_left_alone(subject: Subject) -> None:
    """A router changes nothing that it is shown.

    Neither its inputs, nor what the routed layer before left.
    """
    changed: set[str] = set()

    def decide(router: Router, inputs: RouterInput) -> RoutingPlan:
        before = {name: value.clone() for name, value in _visible(inputs).items()}
        plan = ask(router, inputs)
        changed.update(
            name
            for name, value in _visible(inputs).items()
            if digest(value) != digest(before[name])
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
    """All tensors that a router can reach."""
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
