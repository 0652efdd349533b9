"""Compute figures of routing from masks and scores alone."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bench.routing.paths import Paths


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


def shares_by_group(
    mask: Bool[Tensor, "window seq path"], group: Int[Tensor, "window seq"], groups: int
) -> list[tuple[float, ...]]:
    """Return the share of tokens on each path within each group; 0 for an empty group."""
    total = torch.bincount(group.flatten(), minlength=groups).clamp_min(1)
    sums = torch.zeros(groups, mask.shape[2], dtype=torch.float64).index_add(
        0, group.flatten(), mask.flatten(0, 1).double()
    )
    return [tuple(shares) for shares in (sums / total.unsqueeze(1)).float().tolist()]


def dropped(
    mask: Bool[Tensor, "window seq path"], block: Bool[Tensor, "window seq 2"] | None
) -> float:
    """Return the share of tokens without a path; inside a block, of the tokens in the block."""
    none = ~mask.any(-1)
    return float((none if block is None else none[block[..., 1]]).float().mean())


def entropy(scores: Float[Tensor, "window seq path"]) -> float:
    """Return the mean entropy of the scores' softmax, in nats."""
    log_p = scores.log_softmax(-1)
    return float(-(log_p.exp() * log_p).sum(-1).mean())


def margin(scores: Float[Tensor, "window seq path"]) -> float | None:
    """Return the mean distance of the two largest probabilities; None for a single path."""
    if scores.shape[-1] < 2:
        return None
    first, second = scores.softmax(-1).topk(2).values.unbind(-1)
    return float((first - second).mean())
