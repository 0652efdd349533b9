"""Compute the balance loss of experts, `N * sum_e f_e P_e` of Switch (arXiv:2101.03961, eq. 4)."""

from typing import Literal

from jaxtyping import Bool, Float
from torch import Tensor

Scope = Literal["sequence", "batch", "run"]
Affinity = Float[Tensor, "batch seq expert"]
Choice = Bool[Tensor, "batch seq expert"]


def load_shares(
    chosen: Choice, scope: Scope = "batch", soft: bool = False
) -> Float[Tensor, "group expert"]:
    """Return the share of choices that fell on each expert, of each sequence or of the whole batch.

    Args:
        chosen: the choices.
        scope: a group is a sequence with "sequence", else the batch.
        soft: count only tokens that take one expert.
    """
    mask = chosen.float()
    mask = mask if scope == "sequence" else mask.flatten(0, 1).unsqueeze(0)
    if soft:
        single = mask * (mask.sum(2, keepdim=True) == 1)
        return single.sum(1) / single.sum((1, 2)).clamp_min(1.0).unsqueeze(1)
    return mask.mean(1) / mask.sum(2).mean(1, keepdim=True).clamp_min(1e-9)


def balance_loss(shares: Float[Tensor, "group expert"], probability: Affinity) -> Float[Tensor, ""]:
    """Return `N * sum_e f_e P_e`, a mean over groups: 1 at perfect balance.

    f_e is the share of choices that fell on expert e, P_e its mean probability in the group.
    """
    # Only the probability has a gradient; a count has none.
    groups, experts = shares.shape
    grouped = probability if groups > 1 else probability.flatten(0, 1).unsqueeze(0)
    return experts / groups * (shares * grouped.mean(1)).sum()
