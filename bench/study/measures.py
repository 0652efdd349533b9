"""Define the measures of studies.

A measure reads one number from one record, and knows how to compare and show it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from bench.board.measures import above_best, active_flops, active_share, cost_to_reach
from bench.board.text import number, percent, quantity
from bench.errors import UserError, unknown
from bench.pages.monitors import max_violation, purity
from bench.record import Record
from bench.study.readings import (
    Reading,
    as_told,
    finite,
    ideal_cost,
    load_cv,
    mean_of,
    over_layers,
    probes,
    right_paths,
    several_in,
    share_of,
    training_cost,
)


@dataclass(frozen=True)
class Measure:
    """One measure.

    Attributes:
        name: name in a study's file.
        title: heading of its column.
        meaning: one sentence without a full stop.
        read: returns the value of a record, or None.
        show: turns the value into text.
        ratio: compare rows by the ratio of their values, in logarithms, instead of the difference.
        is_loss: the measure is in nats, so the study's margin applies to it.
        reached: returns whether a run got as far as the measure asks. To leave out the seeds of
            runs that did not would be a selection by their losses.
    """

    name: str
    title: str
    meaning: str
    read: Reading
    show: Callable[[float | None], str]
    ratio: bool = False
    is_loss: bool = False
    reached: Callable[[Record], bool] = lambda _: True

    def coordinate(self, record: Record) -> float | None:
        """Return the number for differences: the value or its logarithm; None if not finite."""
        value = self.read(record)
        if value is None or not math.isfinite(value) or (self.ratio and value <= 0):
            return None
        return math.log(value) if self.ratio else value

    def width(self, size: float) -> float:
        """Convert a margin of the study, nats or a factor, to coordinates."""
        return math.log(size) if self.ratio else size

    def effect(self, difference: float, digits: int = 4) -> str:
        """Show a difference of coordinates: as a factor, or as the difference with its sign."""
        if self.ratio:
            return f"{math.exp(difference):.3g}×" if abs(difference) < 300 else "–"
        return number(difference, digits, signed=True)


def find_measure(name: str) -> Measure:
    """Return the measure of a name.

    `flops_to:2.3`, `tokens_to:2.3` and `seconds_to:2.3` contain a loss in nats, `several_in:2` a
    layer.

    Raises:
        UserError: no such measure, or an invalid loss or layer.
    """
    stem, colon, text = name.partition(":")
    if colon and stem in _REACH:
        return _cost_to(name, _REACH[stem], text)
    if colon and stem == "several_in":
        return _several_in(name, text)
    if name not in MEASURES:
        written = [*(f"{stem}:LOSS" for stem in _REACH), "several_in:LAYER"]
        raise unknown("measure", name, [*MEASURES, *written])
    return MEASURES[name]


Axis = Literal["flops", "tokens", "seconds"]

_REACH: dict[str, Axis] = {"flops_to": "flops", "tokens_to": "tokens", "seconds_to": "seconds"}

_AXES = {
    "flops": "training FLOPs",
    "tokens": "training tokens",
    "seconds": "wall-clock seconds of training",
}


def _cost_to(name: str, axis: Axis, text: str) -> Measure:
    """Make the measure of the cost at which training reaches a loss."""
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan  # refused below, like 0 and infinity
    if not 0 < limit < math.inf:
        raise UserError(
            f"Measure {name!r}: {text!r} is no loss. Write nats after the colon, as {axis}_to:2.3."
        )
    return Measure(
        name,
        f"{axis} to {limit:g}",
        f"{_AXES[axis]} at which the probe's loss first comes down to {limit:g} nats",
        lambda record: finite(cost_to_reach(record.curve, limit, axis)),
        partial(number, digits=1) if axis == "seconds" else quantity,
        ratio=True,
        reached=lambda record: cost_to_reach(record.curve, limit) is not None,
    )


def _several_in(name: str, text: str) -> Measure:
    """Make the measure `several` of one layer."""
    if not text.isascii() or not text.isdigit():
        raise UserError(
            f"Measure {name!r}: {text!r} is no layer. Write its number after the colon, from 0, as "
            "several_in:2."
        )
    return Measure(
        name,
        f"several, layer {int(text)}",
        f"share of tokens of layer {int(text)} on more than one expert at the last probe",
        several_in(int(text)),
        percent,
    )


_nats = partial(number, digits=4)
_two = partial(number, digits=2)


def _factor(value: float | None) -> str:
    return f"{_two(value)}×"


# Name, title, meaning, reader and text of each measure. Names are part of committed studies.

MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure(
            "loss", "loss", "headline loss at the budget at the end of training, nats",
            lambda r: r.loss, _nats, is_loss=True,
        ),
        Measure(
            "best_loss", "best", "lowest loss of the probes during training, nats",
            lambda r: min(probes(r), default=None), _nats, is_loss=True,
        ),
        Measure(
            "average_loss", "average", "mean loss of the probes during training, nats",
            lambda r: mean_of(probes(r)), _nats, is_loss=True,
        ),
        Measure(
            "router_gradient", "router gradient",
            "norm of the routers' gradients, mean over layers and probes",
            over_layers(lambda m: mean_of(m.router_gradient)), partial(number, digits=5),
            ratio=True,
        ),
        Measure(
            "training_cost", "training cost",
            "training FLOPs charged, over those of a full-only model on as many tokens in the same "
            "regime",
            training_cost, _factor, ratio=True,
        ),
        Measure(
            "parameters", "parameters", "parameters in all",
            lambda r: r.training.parameters_total if r.training else None, quantity, ratio=True,
        ),
        Measure(
            "forward_flops", "FLOPs a token", "active FLOPs a token of a forward pass",
            active_flops, quantity, ratio=True,
        ),
        Measure(
            "sparse_cost", "ideal sparse",
            "active FLOPs of the routed forward pass, over the full model's",
            active_share, _factor, ratio=True,
        ),
        Measure(
            "ideal_cost", "ideal sparse cost",
            "the training cost had each token run in training only the paths it takes in use",
            ideal_cost, _factor, ratio=True,
        ),
        Measure(
            "paths_share", "paths", "share of the training FLOPs charged for routed paths",
            share_of("paths"), percent,
        ),
        Measure(
            "backbone_share", "backbone", "share charged for all else that the model is made of",
            share_of("backbone"), percent,
        ),
        Measure(
            "router_share", "router", "share charged for routers and their auxiliary losses",
            share_of("router", "auxiliary", "labels"), percent,
        ),
        Measure(
            "oracle_share", "oracle", "share of the training FLOPs spent on oracle labels",
            share_of("oracle"), percent,
        ),
        Measure(
            "above_best", "above best",
            "headline loss above the least that is possible on the planted task, as a share of it",
            above_best, percent,
        ),
        Measure(
            "latent_variance", "latent variance",
            "of predicted latents of length 1, mean over layers; 0 where they have collapsed",
            over_layers(lambda m: m.latent_variance), _two,
        ),
        Measure(
            "latent_rank", "latent rank",
            "effective rank of predicted latents, mean over layers; 1 where they have collapsed",
            over_layers(lambda m: m.latent_rank), _two,
        ),
        Measure(
            "seconds", "seconds", "wall-clock seconds of training",
            lambda r: finite(r.training.seconds if r.training else None),
            partial(number, digits=0), ratio=True,
        ),
        Measure(
            "load_cv", "load CV",
            "coefficient of variation of the paths' loads, mean over layers",
            over_layers(load_cv), _two,
        ),
        Measure(
            "max_violation", "MaxVio",
            "largest load over the mean load, minus 1, mean over layers",
            over_layers(lambda m: max_violation(m.chosen_load)), _two,
        ),
        Measure(
            "purity", "purity",
            "share of a path's choices that are of its most frequent domain, mean over layers",
            over_layers(purity), percent,
        ),
        Measure(
            "curriculum", "complexity corr.",
            "rank correlation of a sequence's complexity with its loss, mean over the windows of "
            "the curriculum",
            lambda r: mean_of(r.training.curriculum) if r.training else None, _two,
        ),
        Measure(
            "several", "several",
            "share of tokens on more than one expert at the last probe, mean over layers",
            over_layers(lambda m: m.several[-1] if m.several else None), percent,
        ),
        Measure(
            "entropy", "entropy", "entropy of the scores' softmax, nats, mean over layers",
            over_layers(lambda m: m.entropy), _two,
        ),
        Measure(
            "churn", "churn",
            "share of tokens that changed paths between the last two probes, mean over layers",
            over_layers(lambda m: m.churn), percent,
        ),
        Measure(
            "utility_correlation", "utility corr.",
            "rank correlation of score and utility by the row's own oracle, mean over layers",
            over_layers(lambda m: m.utility_correlation), _two,
        ),
        Measure(
            "on_policy_correlation", "corr. in use",
            "rank correlation of score and oracle utility, later layers routed as in use, mean "
            "over layers",
            over_layers(lambda m: m.on_policy_correlation), _two,
        ),
        Measure(
            "topk_gap", "loss over top-k",
            "causal loss at the budget minus the loss with the choice of training, which looks "
            "ahead, on the probe's windows, nats",
            lambda r: r.causal_choice.loss - r.causal_choice.topk_loss if r.causal_choice else None,
            partial(number, digits=4, signed=True), is_loss=True,
        ),
        Measure(
            "topk_accuracy", "as top-k",
            "share of tokens with the choice of training at the calibrated threshold, mean over "
            "sites",
            lambda r: mean_of(r.causal_choice.accuracy) if r.causal_choice else None, percent,
        ),
        Measure(
            "own_accuracy", "as top-k, own",
            "the same at the own threshold of the router's mechanism, without calibration",
            lambda r: mean_of(r.causal_choice.own_accuracy) if r.causal_choice else None, percent,
        ),
        Measure(
            "own_spend", "own spend",
            "spend at that threshold, as a multiple of the budget",
            lambda r: r.causal_choice.own_spend if r.causal_choice else None, _two,
        ),
        Measure(
            "accuracy", "right paths", "share of tokens on their right path, mean over layers",
            right_paths("accuracy"), percent,
        ),
        Measure(
            "chance_accuracy", "by chance",
            "the same of choices with the same loads that ignore the token",
            right_paths("chance"), percent,
        ),
        Measure(
            "supervised_accuracy", "as labelled",
            "share of tokens of labelled training documents on the path of the label",
            as_told("supervised"), percent,
        ),
        Measure(
            "unsupervised_accuracy", "as hidden labels",
            "the same of training documents whose labels were kept back",
            as_told("unsupervised"), percent,
        ),
    )
}  # fmt: skip
