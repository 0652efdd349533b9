"""Define a router that is never trained (arXiv:2402.13089)."""

from bench.routing import BalanceOption, TokenChoice, register


@register("frozen_router", family="experts", paper="arXiv:2402.13089")
class Frozen(TokenChoice):
    """Top-k experts by a random linear score that stays as it was drawn (section 3.3).

    Experts and hidden states are trained. `top2_moe` with `balance: none` is the same with a
    trained score.

    Args:
        num_experts: size of the bank.
        active: number of experts per token.
        renormalise: weigh the chosen by their share of the chosen probability.
        balance: method, fields or list of `bench.routing.balance.Balance`; a loss reaches the
            hidden states alone.
    """

    pointwise = True

    def __init__(
        self,
        num_experts: int = 8,
        active: int = 2,
        renormalise: bool = True,
        balance: BalanceOption = "none",
    ) -> None:
        super().__init__(num_experts, active, renormalise=renormalise, balance=balance)

    def make_scores(self, count: int) -> None:
        """Draw the matrix of the logits and leave it alone."""
        # Without a gradient the optimiser leaves the matrix alone.
        super().make_scores(count)
        self.logits.requires_grad_(False)
