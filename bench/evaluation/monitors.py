"""Compute routing metrics from the plans alone: no router reports its own quality."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bench.data import Corpus, Windows
from bench.evaluation.evaluate import Evaluation
from bench.evaluation.plan_metrics import (
    changed,
    co_activation,
    collapse,
    dropped,
    entropy,
    margin,
    mutual_information,
    path_sets,
    saturation,
    several,
    shares_by_group,
)
from bench.model.assemble import Model
from bench.record import LayerMonitor, Passage
from bench.routing.contract import Router
from bench.routing.paths import Paths

POSITION_BINS = 16
FREQUENCY_BINS = 10
# Tokens of text in the report, with the paths of each.
PASSAGE_TOKENS = 400


@dataclass(frozen=True)
class TrainingHistory:
    """The routing of a model while it was trained.

    Attributes:
        masks: routed site -> masks at every probe, on the windows of the probes.
        gradients: gradient norms in the step before each probe, `[probe][site][router, paths]`.
        shares: share of tokens on each path at the end of training, `[site][path]`; may be empty.
    """

    masks: Mapping[int, Sequence[Bool[Tensor, "window seq path"]]]
    gradients: Sequence[Sequence[Sequence[float]]]
    shares: Sequence[Sequence[float]]


def monitors(
    model: Model,
    corpus: Corpus,
    windows: Windows,
    evaluation: Evaluation,
    history: TrainingHistory,
    utility: Mapping[int, float],
    in_use: Mapping[int, float],
) -> tuple[LayerMonitor, ...]:
    """Return the metrics of every routed site: load, confidence, dependences, training history.

    Args:
        model: has the routers and the sites.
        corpus: has domains and token frequencies.
        windows: the evaluated windows.
        evaluation: the evaluation with its plans.
        history: the routing during training.
        utility: routed site -> rank correlation of score and oracle utility, where measured.
        in_use: the same with later layers routed as in evaluation.
    """
    groups, found = _groups(corpus, windows), list[LayerMonitor]()
    for site, mask in evaluation.masks.items():
        cost, router = model.evaluation_ledger.sites[site], model.decoder.routers[site]
        latents = evaluation.latents.get(site)
        variance, rank = (None, None) if latents is None else collapse(latents)
        found.append(
            LayerMonitor(
                layer=cost.layer,
                paths=router.paths.names,
                always=router.paths.always,
                co_activation=co_activation(mask, router.paths),
                # A site inside a block is followed by the site of the block.
                dropped=dropped(mask, evaluation.masks[site + 1] if cost.inside else None),
                utility_correlation=utility.get(site),
                on_policy_correlation=in_use.get(site),
                latent_variance=variance,
                latent_rank=rank,
                **_loads(mask, groups, corpus.domains),
                **_confidence(evaluation.scores.get(site), router.paths),
                **_in_training(history, site, router),
            )
        )
    return tuple(found)


@dataclass(frozen=True)
class _Groups:
    """The domain of each token, and the bins of its position and of its frequency."""

    domain: Int[Tensor, "window seq"]
    position: Int[Tensor, "window seq"]
    frequency: Int[Tensor, "window seq"]


def _groups(corpus: Corpus, windows: Windows) -> _Groups:
    tokens = torch.from_numpy(windows.tokens[:, :-1])
    place = torch.arange(tokens.shape[1]).expand_as(tokens)
    return _Groups(
        domain=torch.from_numpy(windows.tags).unsqueeze(1).expand_as(tokens),
        position=place * POSITION_BINS // tokens.shape[1],
        frequency=_frequency_bins(corpus)[tokens],
    )


def _loads(
    mask: Bool[Tensor, "window seq path"], groups: _Groups, domains: Sequence[str]
) -> dict[str, Any]:
    """Return the fields of a monitor about the tokens on each path."""
    by_domain = shares_by_group(mask, groups.domain, len(domains))
    return {
        "load": tuple(mask.float().mean((0, 1)).tolist()),
        "load_by_domain": dict(zip(domains, by_domain, strict=True)),
        "load_by_position": tuple(shares_by_group(mask, groups.position, POSITION_BINS)),
        "load_by_frequency": tuple(shares_by_group(mask, groups.frequency, FREQUENCY_BINS)),
        "domain_information": mutual_information(path_sets(mask)[0], groups.domain),
    }


def _confidence(
    scores: Float[Tensor, "window seq path"] | None, paths: Paths
) -> dict[str, float | None]:
    """Return the fields of a monitor about the scores; None without scores."""
    if scores is None:
        return {"entropy": None, "margin": None, "max_logit": None}
    # A shared expert is no choice, so its score says nothing about confidence.
    if paths.always:
        scores = scores[..., paths.chosen]
    return {
        "entropy": entropy(scores),
        "margin": margin(scores),
        "max_logit": float(scores.max()),
    }


def _in_training(history: TrainingHistory, site: int, router: Router) -> dict[str, Any]:
    """Return the fields of a monitor about the training."""
    probed = history.masks.get(site, ())
    # A router without parameters has no gradient, and not one of 0.
    learns = any(True for _ in router.parameters())
    return {
        "trained_load": tuple(history.shares[site]) if history.shares else (),
        "several": several(probed, router.paths),
        "churn": changed(probed[-1], probed[-2]) if len(probed) > 1 else None,
        "saturation": saturation(probed),
        "router_gradient": tuple(norms[site][0] for norms in history.gradients if learns),
        "paths_gradient": tuple(norms[site][1] for norms in history.gradients),
    }


def passage(
    model: Model, corpus: Corpus, windows: Windows, evaluation: Evaluation
) -> Passage | None:
    """Return some text with the paths of each token, for the report.

    It is the first windows of the first headline domain.
    """
    if not evaluation.masks:
        return None
    domain = (corpus.headline_domains or corpus.domains)[0]
    # Whole windows, as many as make the wanted number of tokens.
    chosen = np.flatnonzero(windows.tags == corpus.domains.index(domain))[
        : max(1, PASSAGE_TOKENS // (windows.tokens.shape[1] - 1))
    ]
    choices: dict[str, tuple[int, ...]] = {}
    legend: dict[str, tuple[str, ...]] = {}
    for site, mask in evaluation.masks.items():
        index, sets = path_sets(mask[torch.from_numpy(chosen)])
        names = model.decoder.routers[site].paths.names
        layer = str(model.evaluation_ledger.sites[site].layer)
        if layer in choices:  # a block, after the site inside it
            layer += " block"
        choices[layer] = tuple(index.flatten().tolist())
        legend[layer] = tuple(" + ".join(names[path] for path in paths) or "none" for paths in sets)
    text = corpus.decode(windows.tokens[chosen, :-1].flatten().tolist())
    return Passage(domain=domain, tokens=tuple(text), choices=choices, legend=legend)


def _frequency_bins(corpus: Corpus) -> Int[Tensor, " vocab"]:
    """Return the bin of each token id, 0 for the rarest, by equal shares of the training text."""
    # Sort the ids by frequency. A bin follows from the middle of an id's share of the text.
    counts = np.bincount(corpus.train.tokens, minlength=corpus.vocab_size)
    order = counts.argsort(kind="stable")
    middle = (counts[order].cumsum() - counts[order] / 2) / counts.sum()
    bins = np.empty(corpus.vocab_size, np.int64)
    bins[order] = np.minimum((middle * FREQUENCY_BINS).astype(np.int64), FREQUENCY_BINS - 1)
    return torch.from_numpy(bins)
