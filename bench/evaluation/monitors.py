"""Compute routing metrics from the plans alone: no router reports its own quality."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bench.backbone.decoder import Decoder
from bench.data import Corpus, Windows
from bench.evaluation.evaluate import Evaluation
from bench.flops.ledger import Ledger
from bench.record import LayerMonitor, Passage
from bench.routing.contract import Paths

POSITION_BINS = 16
FREQUENCY_BINS = 10
# Tokens of text in the report, with the paths of each.
PASSAGE_TOKENS = 400


def monitors(
    decoder: Decoder,
    ledger: Ledger,
    corpus: Corpus,
    windows: Windows,
    evaluation: Evaluation,
    history: Mapping[int, Sequence[Bool[Tensor, "window seq path"]]],
    gradients: Sequence[Sequence[Sequence[float]]],
    trained: Sequence[Sequence[float]],
    utility: Mapping[int, float],
    in_use: Mapping[int, float],
) -> tuple[LayerMonitor, ...]:
    """Return the metrics of every routed site: load, confidence, dependences, training history.

    Args:
        decoder: has the names of the paths.
        ledger: has the sites.
        corpus: has domains and token frequencies.
        windows: the evaluated windows.
        evaluation: the evaluation with its plans.
        history: routed site -> masks at every probe of training, on the same windows.
        gradients: gradient norms in the step before each probe, `[probe][site][router, paths]`.
        trained: share of tokens on each path at the end of training, `[site][path]`.
        utility: routed site -> rank correlation of score and oracle utility, where measured.
        in_use: the same with later layers routed as in evaluation.
    """
    tokens = torch.from_numpy(windows.tokens[:, :-1])
    domain = torch.from_numpy(windows.tags).unsqueeze(1).expand_as(tokens)
    position = torch.arange(tokens.shape[1]).expand_as(tokens) * POSITION_BINS // tokens.shape[1]
    # Each token has a domain, a bin of its position and a bin of its frequency.
    frequency = _frequency_bins(corpus)[tokens]
    found: list[LayerMonitor] = []
    for site, mask in evaluation.masks.items():
        site_cost = ledger.sites[site]
        by_domain = _by_bin(mask, domain, len(corpus.domains))
        router, probed = decoder.routers[site], history.get(site, ())
        scores = evaluation.scores.get(site)
        if scores is not None and router.paths.always:
            scores = scores[..., router.paths.chosen]
        variance, rank = (
            collapse(evaluation.latents[site]) if site in evaluation.latents else (None, None)
        )
        found.append(
            LayerMonitor(
                layer=site_cost.layer,
                paths=router.paths.names,
                load=tuple(mask.float().mean((0, 1)).tolist()),
                trained_load=tuple(trained[site]) if trained else (),
                always=router.paths.always,
                several=several(probed, router.paths),
                co_activation=co_activation(mask, router.paths),
                load_by_domain=dict(zip(corpus.domains, by_domain, strict=True)),
                load_by_position=tuple(_by_bin(mask, position, POSITION_BINS)),
                load_by_frequency=tuple(_by_bin(mask, frequency, FREQUENCY_BINS)),
                entropy=None if scores is None else _entropy(scores),
                margin=None if scores is None else _margin(scores),
                max_logit=None if scores is None else float(scores.max()),
                dropped=_dropped(mask, evaluation.masks[site + 1] if site_cost.inside else None),
                churn=changed(probed[-1], probed[-2]) if len(probed) > 1 else None,
                saturation=saturation(probed),
                router_gradient=tuple(norms[site][0] for norms in gradients)
                if any(True for _ in router.parameters())
                else (),
                paths_gradient=tuple(norms[site][1] for norms in gradients),
                utility_correlation=utility.get(site),
                on_policy_correlation=in_use.get(site),
                latent_variance=variance,
                latent_rank=rank,
                domain_information=mutual_information(path_sets(mask)[0], domain),
            )
        )
    return tuple(found)


def path_sets(
    mask: Bool[Tensor, "window seq path"],
) -> tuple[Int[Tensor, "window seq"], list[tuple[int, ...]]]:
    """Number the distinct sets of paths that tokens take.

    Returns:
        The index of each token's set, and the paths in each set.
    """
    rows, index = mask.flatten(0, 1).unique(dim=0, return_inverse=True)
    return index.view(mask.shape[:2]), [tuple(row.nonzero().flatten().tolist()) for row in rows]


def changed(
    mask: Bool[Tensor, "window seq path"], before: Bool[Tensor, "window seq path"]
) -> float:
    """Return the churn: the share of tokens whose set of paths changed."""
    return float((mask != before).any(-1).float().mean())


def saturation(probed: Sequence[Bool[Tensor, "window seq path"]]) -> tuple[float, ...]:
    """Return the saturation of each probe but the last (OLMoE, arXiv:2409.02060, section 5.1).

    It is the share of the last probe's choices that the earlier probe had already made.
    """
    return tuple(
        int((mask & probed[-1]).sum()) / max(1, int(probed[-1].sum())) for mask in probed[:-1]
    )


def several(probed: Sequence[Bool[Tensor, "window seq path"]], paths: Paths) -> tuple[float, ...]:
    """Return the share of tokens that took more than one expert at each probe.

    Experts that every token takes don't count. Empty where all tokens take equally many, or none.
    """
    chosen = paths.chosen_experts
    found = [float((mask[..., chosen].sum(-1) > 1).float().mean()) for mask in probed]
    return tuple(found) if any(0 < share < 1 for share in found) else ()


def co_activation(mask: Bool[Tensor, "window seq path"], paths: Paths) -> float | None:
    """Return the share of an expert's tokens that also take its most frequent partner.

    It is a mean over the chosen experts, by load (after OLMoE, arXiv:2409.02060, section 5.2). None
    if no token takes two of them.
    """
    chosen = paths.chosen_experts
    taken = mask[..., chosen].flatten(0, 1).double()
    together = taken.mT @ taken
    load = together.diagonal().clone()
    partner = together.fill_diagonal_(0).amax(1) if len(chosen) > 1 else torch.zeros(1)
    return float(partner.sum() / load.sum()) if partner.any() else None


def collapse(latent: Float[Tensor, "window seq path latent"]) -> tuple[float, float]:
    """Measure how far predictions have collapsed into few directions.

    Returns:
        The variance of the predictions after scaling to length 1: 0 if all are equal, at most 1.
        And the effective rank of their covariance, 1 to `latent`: the exponential of the entropy of
        its normalised eigenvalues (Roy and Vetterli, 2007). Both are means over paths.
    """
    # [path, token, latent], each prediction with length 1
    unit = torch.nn.functional.normalize(latent.flatten(0, 1).double(), dim=-1).transpose(0, 1)
    centred = unit - unit.mean(1, keepdim=True)
    eigenvalues = torch.linalg.eigvalsh(centred.mT @ centred / unit.shape[1]).clamp_min(0)
    # Eigenvalues as shares of the variance; their entropy is largest if all directions are used.
    share = eigenvalues / eigenvalues.sum(-1, keepdim=True).clamp_min(1e-12)
    entropy = -torch.special.xlogy(share, share).sum(-1)
    return float(eigenvalues.sum(-1).mean()), float(entropy.exp().mean())


def mutual_information(first: Int[Tensor, "..."], second: Int[Tensor, "..."]) -> float:
    """Return the mutual information of two labellings, in nats, from their joint counts."""
    # Number the pairs of labels, and count each pair.
    a, b = first.flatten(), second.flatten()
    width = int(b.max()) + 1
    joint = (
        torch.bincount(a * width + b, minlength=(int(a.max()) + 1) * width).view(-1, width).double()
    )
    joint /= joint.sum()
    independent = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    some = joint > 0
    return max(0.0, float((joint[some] * (joint[some] / independent[some]).log()).sum()))


def passage(
    ledger: Ledger, decoder: Decoder, corpus: Corpus, windows: Windows, evaluation: Evaluation
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
        names = decoder.routers[site].paths.names
        layer = str(ledger.sites[site].layer)
        if layer in choices:  # a block, after the site inside it
            layer += " block"
        choices[layer] = tuple(index.flatten().tolist())
        legend[layer] = tuple(" + ".join(names[path] for path in paths) or "none" for paths in sets)
    text = corpus.decode(windows.tokens[chosen, :-1].flatten().tolist())
    return Passage(domain=domain, tokens=tuple(text), choices=choices, legend=legend)


def _by_bin(
    mask: Bool[Tensor, "window seq path"], group: Int[Tensor, "window seq"], groups: int
) -> list[tuple[float, ...]]:
    """Return the share of tokens on each path within each group; 0 for an empty group."""
    total = torch.bincount(group.flatten(), minlength=groups).clamp_min(1)
    sums = torch.zeros(groups, mask.shape[2], dtype=torch.float64).index_add(
        0, group.flatten(), mask.flatten(0, 1).double()
    )
    return [tuple(shares) for shares in (sums / total.unsqueeze(1)).float().tolist()]


def _dropped(
    mask: Bool[Tensor, "window seq path"], block: Bool[Tensor, "window seq 2"] | None
) -> float:
    """Return the share of tokens without a path; inside a block, of the tokens in the block."""
    none = ~mask.any(-1)
    return float((none if block is None else none[block[..., 1]]).float().mean())


def _entropy(scores: Float[Tensor, "window seq path"]) -> float:
    log_p = scores.log_softmax(-1)
    return float(-(log_p.exp() * log_p).sum(-1).mean())


def _margin(scores: Float[Tensor, "window seq path"]) -> float | None:
    """Return the mean distance of the two largest probabilities; None for a single path."""
    if scores.shape[-1] < 2:
        return None
    first, second = scores.softmax(-1).topk(2).values.unbind(-1)
    return float((first - second).mean())


def _frequency_bins(corpus: Corpus) -> Int[Tensor, " vocab"]:
    """Return the bin of each token id, 0 for the rarest, by equal shares of the training text."""
    # Sort the ids by frequency. A bin follows from the middle of an id's share of the text.
    counts = np.bincount(corpus.train.tokens, minlength=corpus.vocab_size)
    order = counts.argsort(kind="stable")
    middle = (counts[order].cumsum() - counts[order] / 2) / counts.sum()
    bins = np.empty(corpus.vocab_size, np.int64)
    bins[order] = np.minimum((middle * FREQUENCY_BINS).astype(np.int64), FREQUENCY_BINS - 1)
    return torch.from_numpy(bins)
