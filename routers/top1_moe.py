"""Define the router of the Switch Transformer: one expert per token (arXiv:2101.03961)."""

from bench.routing import BalanceOption, TokenChoice, register


@register("top1_moe", family="experts", paper="arXiv:2101.03961")
class Top1(TokenChoice):
    """The most probable expert for every token, weighed by its probability (Switch, section 2.1).

    There is no capacity limit, so no token is dropped. The authors' jitter of the router's inputs
    is an option of training, `noise: jitter`.

    Args:
        num_experts: size of the bank, before it is split.
        num_shared: number of experts that every token also takes.
        granularity: parts of each expert; a token takes as many of them.
        balance: method, fields or list of `bench.routing.balance.Balance`; the authors' rule is
            the load-balancing loss with weight 0.01, a sum over layers (section 2.2).
    """

    pointwise = True

    def __init__(
        self,
        num_experts: int = 8,
        num_shared: int = 0,
        granularity: int = 1,
        balance: BalanceOption = "auxiliary",
    ) -> None:
        # The weight must be the probability itself: a share of 1 would have no gradient.
        super().__init__(
            num_experts,
            active=1,
            renormalise=False,
            num_shared=num_shared,
            granularity=granularity,
            balance=balance,
        )
