"""Auxiliary losses of routing, as pure functions of one layer's trace.

Each returns a scalar that the harness weighs by name and adds to the language-modelling loss.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from bench.contract import LayerTrace


def _logits(trace: LayerTrace) -> Float[Tensor, "batch seq path"]:
    if trace.plan.scores is None:
        raise TypeError("This auxiliary loss needs plan.scores, and the plan has none.")
    return trace.plan.scores


def load_balance(trace: LayerTrace) -> Float[Tensor, ""]:
    """`N * sum_e f_e P_e`: 1 at perfect balance (Switch Transformer, arXiv:2101.03961, section 2.2).

    f_e is the share of assignments that path e received, P_e its mean probability.
    """
    mask = trace.plan.mask.float().flatten(0, 1)
    probabilities = _logits(trace).softmax(-1).flatten(0, 1).mean(0)
    return mask.shape[1] * (mask.mean(0) / mask.sum(1).mean().clamp_min(1e-9) * probabilities).sum()


def load_balance_single(trace: LayerTrace) -> Float[Tensor, ""]:
    """Load balance with f_e counted over tokens that take one expert only (arXiv:2310.07188, section 3.2).

    Tokens that take two are free to choose, hence "soft".
    """
    mask = trace.plan.mask.float().flatten(0, 1)
    single = mask * (mask.sum(1, keepdim=True) == 1)
    share = single.sum(0) / single.sum().clamp_min(1.0)
    return mask.shape[1] * (share * _logits(trace).softmax(-1).flatten(0, 1).mean(0)).sum()


def router_z(trace: LayerTrace) -> Float[Tensor, ""]:
    """`mean(logsumexp(scores)^2)`: keeps logits small (ST-MoE, arXiv:2202.08906, equation 5)."""
    return _logits(trace).logsumexp(-1).square().mean()


def centre(trace: LayerTrace) -> Float[Tensor, ""]:
    """Binary cross-entropy of the upgrade's score against its own top-k choice (arXiv:2404.02258, section 3.5).

    It moves the chosen scores above 0 and the others below, so that a fixed threshold of 0 nearly repeats top-k.
    """
    return F.binary_cross_entropy_with_logits(_logits(trace)[..., 1], trace.plan.mask[..., 1].float())


def mean_loss(values: list[Float[Tensor, ""]]) -> Float[Tensor, ""]:
    """Mean over layers, so that a loss's weight means the same at any depth."""
    return torch.stack(values).mean()
