"""Define a balance by quantiles, without loss and step size (kexue.fm 11619, 11626; Kimi K3)."""

from bench.routing import BalanceOption, TokenChoice, register


@register("quantile_balancing", family="experts", paper="kexue.fm/archives/11619")
class QuantileBalancing(TokenChoice):
    """Experts with the highest sigmoid affinity plus bias.

    After each step, the bias is solved so that the last batch would have been balanced. There is no
    loss and no step size. The bias is fixed in evaluation.

    Args:
        num_experts: experts to choose among, before they are split.
        active: number of chosen experts per token, before they are split.
        num_shared: number of experts that every token also takes, as wide as the split ones.
        granularity: parts of each expert.
        renormalise: weigh the chosen by their share of the chosen affinity, without bias.
        balance: method, fields or list of `bench.routing.balance.Balance`; `{method: quantile,
            scope: run}` averages the quantiles over steps.
    """

    pointwise = True

    def __init__(
        self,
        num_experts: int = 8,
        active: int = 2,
        num_shared: int = 0,
        granularity: int = 1,
        renormalise: bool = True,
        balance: BalanceOption = "quantile",
    ) -> None:
        super().__init__(
            num_experts, active, "sigmoid", renormalise, num_shared, granularity, balance
        )
