"""Balance by quantiles instead of a loss or a step (kexue.fm 11619, 11626; Kimi K3)."""

from bench.routing import BalanceOption, TokenChoice, register


@register("quantile_balancing", family="experts", paper="kexue.fm/archives/11619")
class QuantileBalancing(TokenChoice):
    """Experts with the highest sigmoid affinity plus bias, the bias being solved after each step so
    that the last batch would have been balanced.

    Nothing is set: no loss, no size of a step. The bias stands still in evaluation.

    Args:
        num_experts: experts to choose among, before they are split.
        active: experts that a token chooses, before they are split.
        num_shared: experts that every token takes too, as wide as the split ones.
        granularity: parts that each expert is split into.
        renormalise: weigh the chosen by their share of the chosen affinity, without bias.
        balance: method, fields or list of `bench.routing.balance.Balance`; with `{method: quantile,
            scope: run}` quantiles are averaged over steps.
    """

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
