"""Define self-routing: hidden states are their own logits (arXiv:2604.00421)."""

from bench.routing import BalanceOption, RouterInput, TokenChoice, register
from bench.routing.token_choice import Logits


@register("self_routing", family="experts", paper="arXiv:2604.00421")
class SelfRouting(TokenChoice):
    """Top-k experts by the first dimensions of the hidden state, which are the logits.

    The router has no parameters. The paths read all of the hidden state, these dimensions
    included.

    Args:
        num_experts: size of the bank; at most d_model.
        active: number of experts per token.
        renormalise: weigh the chosen by their share of the chosen probability.
        balance: method, fields or list of `bench.routing.balance.Balance`; the authors have none.

    Raises:
        ValueError: an option that is not allowed, or more experts than dimensions.
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
        """Make nothing."""
        # There is no matrix: the hidden state must have a dimension per expert.
        if count > self.spec.d_model:
            raise ValueError(
                f"num_experts is {count}; hidden states have {self.spec.d_model} dimensions to "
                "score them by."
            )

    def score(self, inputs: RouterInput) -> Logits:
        """Return the first dimensions of the hidden state."""
        return inputs.hidden[..., : self.num_experts]
