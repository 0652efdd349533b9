"""Define the router of DeepSeek-V3 (arXiv:2412.19437).

It has sigmoid affinities, shared and split experts, and a bias for the choice.
"""

import torch

from bench.routing import BalanceOption, TokenChoice, register
from bench.routing.balance_loss import Affinity, Choice

PUBLISHED: BalanceOption = [
    "sign_bias",
    {"method": "auxiliary", "scope": "sequence", "weight": 1e-4},
]
"""Section 2.1.2: a bias that moves by 0.001 a step, and a loss within each sequence."""


@register("deepseek_v3", family="experts", paper="arXiv:2412.19437")
class DeepSeekV3(TokenChoice):
    """Experts with the highest sigmoid affinity plus bias, and shared ones (section 2.1.2).

    The affinity without the bias weighs them.

    Args:
        num_experts: experts to choose among, before they are split.
        active: number of chosen experts per token, before they are split.
        num_shared: number of experts that every token also takes, as wide as the split ones.
        granularity: parts of each expert.
        renormalise: weigh the chosen by their share of the chosen affinity (equation 13).
        scale: factor on these weights; the released model has 2.5.
        groups: equal parts of the bank; a token chooses within the best groups (section 2.1.2,
            node-limited routing). 1 leaves the choice free.
        groups_kept: number of groups that a token may choose from. The score of a group is the sum
            of its two best experts.
        balance: method, fields or list of `bench.routing.balance.Balance`; by default a sign bias
            of step 0.001 and the loss within each sequence with weight 0.0001, a sum over layers.

    Raises:
        ValueError: an option that is not allowed.
    """

    pointwise = True

    def __init__(
        self,
        num_experts: int = 8,
        active: int = 2,
        num_shared: int = 1,
        granularity: int = 2,
        renormalise: bool = True,
        scale: float = 1.0,
        groups: int = 1,
        groups_kept: int = 1,
        balance: BalanceOption = PUBLISHED,
    ) -> None:
        super().__init__(
            num_experts, active, "sigmoid", renormalise, num_shared, granularity, balance
        )
        if scale <= 0:
            raise ValueError(f"scale is {scale}; it must be above 0.")
        if groups < 1 or self.num_experts % groups:
            raise ValueError(
                f"groups is {groups}; it must divide the {self.num_experts} split experts."
            )
        size = self.num_experts // groups
        if not 1 <= groups_kept <= groups or groups_kept * size < self.active:
            raise ValueError(
                f"groups_kept is {groups_kept}; of {groups} groups of {size} so many must be kept "
                f"that {self.active} experts can be chosen."
            )
        self.scale, self.groups, self.groups_kept = scale, groups, groups_kept

    def weigh(self, chosen: Choice, affinity: Affinity) -> Affinity:
        """Scale the weights."""
        return super().weigh(chosen, affinity) * self.scale

    def wanted(self, affinity: Affinity) -> Affinity:
        """Leave out the groups that a token may not choose from."""
        # By affinity plus bias, as the choice of experts.
        wanted = super().wanted(affinity)
        if self.groups == 1:
            return wanted
        grouped = wanted.unflatten(-1, (self.groups, -1))
        best = grouped.topk(min(2, grouped.shape[-1])).values.sum(-1)
        # Minus infinity keeps the other groups out of the top-k.
        kept = torch.zeros_like(best, dtype=torch.bool)
        kept = kept.scatter(-1, best.topk(self.groups_kept).indices, True)
        return grouped.masked_fill(~kept.unsqueeze(-1), -torch.inf).flatten(-2)
