"""Define the base of token choice: each token takes the experts with the highest scores."""

from functools import partial
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bench.routing import losses
from bench.routing.balance import Balance, BalanceOption, Balancer, read_balance
from bench.routing.balance_loss import Affinity, Choice
from bench.routing.contract import AuxLoss, LayerTrace, Router, RouterInput, RouterSpec, RoutingPlan
from bench.routing.estimators import highest
from bench.routing.paths import experts
from bench.routing.scores import DROPPED, biased, perturb, top_experts

Scores = Literal["softmax", "sigmoid"]
Logits = Float[Tensor, "batch seq expert"]


class TokenChoice(Router):
    """Base of routers that send each token to its best experts by a linear score.

    The axis `expert` holds the experts to choose among. On the axis `path` of a plan, the shared
    experts come before them.

    Args:
        num_experts: experts to choose among, before they are split.
        active: number of chosen experts per token, before they are split.
        scores: affinity of an expert to a token: the "softmax" of its logit over experts, or its
            "sigmoid".
        renormalise: weigh the chosen by their share of the chosen affinity, instead of the affinity
            itself. A token with one expert keeps the affinity, since a share of 1 has no gradient.
        num_shared: number of experts that every token also takes, with weight 1, as wide as the
            split ones (DeepSeekMoE, arXiv:2401.06066, section 3.2).
        granularity: parts of each expert; a token chooses so many times more of them (the same,
            section 3.1). The budget makes them narrower.
        balance: rules that keep loads alike: a method of `bench.routing.balance.Balance`, its
            fields, or a list of these.
        mean_experts: mean number of experts per token, for subclasses that don't fix the number.

    Raises:
        ValueError: an option that is not allowed.
    """

    balancer: Balancer

    def __init__(
        self,
        num_experts: int,
        active: int = 1,
        scores: Scores = "softmax",
        renormalise: bool = True,
        num_shared: int = 0,
        granularity: int = 1,
        balance: BalanceOption = "none",
        mean_experts: float | None = None,
    ) -> None:
        super().__init__()
        if num_experts < 2:
            raise ValueError(
                f"num_experts is {num_experts}; at least 2 are needed to choose among."
            )
        if not 1 <= active <= num_experts:
            raise ValueError(f"active is {active}; allowed is 1 to num_experts, {num_experts}.")
        if scores not in get_args(Scores):
            raise ValueError(f"scores is {scores!r}; allowed are 'softmax', 'sigmoid'.")
        for name, value, least in (("num_shared", num_shared, 0), ("granularity", granularity, 1)):
            if value < least:
                raise ValueError(f"{name} is {value}; it must be at least {least}.")
        if mean_experts is not None and not 0 < mean_experts <= num_experts:
            raise ValueError(
                f"mean_experts is {mean_experts}; allowed is above 0 and at most num_experts, "
                f"{num_experts}."
            )
        # From here on, an expert is a split one.
        self.num_experts, self.active = num_experts * granularity, active * granularity
        self.scores, self.renormalise, self.num_shared = scores, renormalise, num_shared
        self.paths = experts(self.num_experts, shared=num_shared)
        self.mean_experts = mean_experts or float(self.active + num_shared)
        self.balance = read_balance(balance)
        # The quantile is of the next expert, so one must be left.
        if active == num_experts and any(rule.method == "quantile" for rule in self.balance):
            raise ValueError(
                f"balance is 'quantile' and active {active}; it needs one of {num_experts} experts "
                "left out."
            )
        for rule in self.balance:
            self._add_loss(rule)

    def _add_loss(self, rule: Balance) -> None:
        if rule.method == "z":
            self.aux_losses["router_z"] = AuxLoss(losses.router_z, rule.loss_weight)
        elif rule.method in ("auxiliary", "soft"):
            loss = AuxLoss(partial(self._load_balance, rule), rule.loss_weight)
            self.aux_losses["load_balance"] = loss

    def build(self, spec: RouterSpec) -> None:
        """Make the parameters of the scores, and the state of the balance."""
        super().build(spec)
        self.make_scores(self.num_experts)
        self.balancer = Balancer(self.balance, self.num_experts, self.active)

    def make_scores(self, count: int) -> None:
        """Make the matrix of `count` logits."""
        self.logits = nn.Linear(self.spec.d_model, count, bias=False)

    def score(self, inputs: RouterInput) -> Logits:
        """Return the logits, with the noise of the recipe."""
        return perturb(self.logits(inputs.hidden), inputs)

    def affinity(self, logits: Logits) -> Affinity:
        """Return the affinities, by which experts are chosen and weighed."""
        return logits.softmax(-1) if self.scores == "softmax" else logits.sigmoid()

    def wanted(self, affinity: Affinity) -> Affinity:
        """Return the affinity with the bias of the balance, for the choice alone."""
        return affinity if self.balancer.bias is None else affinity + self.balancer.bias

    def choose(self, logits: Logits, affinity: Affinity, inputs: RouterInput) -> Choice:
        """Mark the experts with the highest affinity plus bias."""
        # Softmax keeps the order of the logits, so without a bias these choose, one softmax less.
        wanted = self.wanted(affinity)
        plain = wanted is affinity and self.scores == "softmax"
        index = top_experts(logits, self.active, inputs, None if plain else wanted)
        return marked(index, self.num_experts)

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        """Choose the experts of every token and weigh them."""
        logits = self.score(inputs)
        affinity = self.affinity(logits)
        return self.plan(self.choose(logits, affinity, inputs), logits, affinity)

    def plan(self, chosen: Choice, logits: Logits, affinity: Affinity) -> RoutingPlan:
        """Build the plan of a choice, with the shared experts."""
        weight = self.weigh(chosen, affinity)
        if not self.num_shared:
            return RoutingPlan(chosen, weight, logits)
        shape = (*logits.shape[:-1], self.num_shared)
        return RoutingPlan(
            torch.cat((chosen.new_ones(shape), chosen), -1),
            torch.cat((weight.new_ones(shape), weight), -1),
            torch.cat((logits.new_zeros(shape), logits), -1),
        )

    def weigh(self, chosen: Choice, affinity: Affinity) -> Affinity:
        """Return the factors on the outputs of the chosen experts, 0 for the others."""
        weight = affinity * chosen
        if not self.renormalise:
            return weight
        # A share of 1 would have no gradient, and a token without an expert no total.
        several = chosen.sum(-1, keepdim=True) > 1
        return weight / torch.where(several, weight.sum(-1, keepdim=True), 1.0)

    def logits_of(self, trace: LayerTrace) -> Logits:
        """Return the logits of a plan, without the shared experts."""
        assert trace.plan.scores is not None
        return trace.of_chosen(trace.plan.scores)

    def chosen_of(self, trace: LayerTrace) -> Choice:
        """Return the choice of a plan, without the shared experts."""
        return trace.of_chosen(trace.plan.chosen)

    def counted_of(self, trace: LayerTrace) -> Choice:
        """Return the choices that a loss counts (arXiv:2412.19437, equation 18).

        With a bias of the balance they are the choices without any bias. Else they are those of
        the plan, which a bias of the recipe may have moved.
        """
        if self.balancer.bias is None:
            return self.chosen_of(trace)
        return highest(self.affinity(self.logits_of(trace)), self.active)

    def _load_balance(self, rule: Balance, trace: LayerTrace) -> Float[Tensor, ""]:
        probability = self.affinity(self.logits_of(trace))
        # The loss needs probabilities: sigmoids of a token do not add up to 1.
        if self.scores == "sigmoid":
            probability = probability / probability.sum(-1, keepdim=True)
        return self.balancer.loss(rule, self.counted_of(trace), probability)

    def after_step(self, trace: LayerTrace) -> None:
        """Move the bias and the mean over the run."""
        if self.balancer.moves:
            affinity = self.affinity(self.logits_of(trace))
            counted = self.counted_of(trace)
            self.balancer.after_step(counted, self.chosen_of(trace), affinity)


def marked(index: Int[Tensor, "batch seq rank"], count: int) -> Choice:
    """Mark the experts at `index`, of `count` experts."""
    mask = torch.zeros(*index.shape[:2], count, dtype=torch.bool, device=index.device)
    return mask.scatter(2, index, True)


def first_of(
    taken: Bool[Tensor, "batch seq rank"], logits: Logits, wanted: Affinity, inputs: RouterInput
) -> Choice:
    """Mark the experts of the taken ranks, from the most wanted on, and no dropped one."""
    count, none = taken.shape[-1], torch.zeros_like(wanted, dtype=torch.bool)
    if inputs.noise is None:
        return none.scatter(2, wanted.topk(count).indices, taken)
    # A dropped expert must not come back by its bias, or where more are taken than are left.
    dropped = logits <= DROPPED
    index = wanted.masked_fill(dropped, -torch.inf).topk(count).indices
    return none.scatter(2, index, taken).masked_fill(dropped, False)


class ThresholdChoice(TokenChoice):
    """Base of token choice with a threshold T for the number of experts per token.

    A higher T takes more experts. No bias of the balance moves T, nor the values compared with it.

    Args:
        num_experts: size of the bank.
        most: largest number of experts per token.
        mean_experts: intended mean number of experts per token; it fixes the width of an expert,
            and a controlled T holds it.
        threshold: "controlled" moves T in training to hold `mean_experts`, and evaluation
            calibrates it; "fixed" keeps it at `initial_threshold`.
        initial_threshold: T at the start.
        control_rate: step of T per expert of difference between the two means.
        renormalise: see `TokenChoice`.
        balance: see `TokenChoice`.

    Attributes:
        fewest: smallest number of experts per token.
        limits: smallest and largest T.

    Raises:
        ValueError: an option that is not allowed.
    """

    fewest = 1
    limits = (0.0, 1.0)
    threshold: Tensor

    def __init__(
        self,
        num_experts: int,
        most: int,
        mean_experts: float,
        threshold: Literal["controlled", "fixed"],
        initial_threshold: float,
        control_rate: float,
        renormalise: bool,
        balance: BalanceOption,
    ) -> None:
        super().__init__(num_experts, most, renormalise=renormalise, balance=balance)
        if not self.fewest <= mean_experts <= most:
            raise ValueError(
                f"mean_experts is {mean_experts}; a token takes {self.fewest} to {most} experts, "
                "and so must the mean."
            )
        if threshold not in ("controlled", "fixed"):
            raise ValueError(f"threshold is {threshold!r}; allowed are 'controlled', 'fixed'.")
        if any(rule.method == "quantile" for rule in self.balance):
            raise ValueError(
                "balance is 'quantile', which needs a fixed number of experts a token."
            )
        self.mean_experts, self.mode = mean_experts, threshold
        self.initial_threshold, self.control_rate = initial_threshold, control_rate

    def build(self, spec: RouterSpec) -> None:
        """Make the matrix of the logits, and the threshold."""
        super().build(spec)
        self.register_buffer("threshold", torch.tensor(self.initial_threshold))
        if self.mode == "controlled":
            self.enable_knob()

    def threshold_in(self, inputs: RouterInput) -> Float[Tensor, ""]:
        """Return T: the state of training, or the knob in evaluation."""
        return self.threshold if inputs.selection == "topk" or self.knob is None else self.knob

    def first(
        self,
        taken: Bool[Tensor, "batch seq rank"],
        logits: Logits,
        affinity: Affinity,
        inputs: RouterInput,
    ) -> Choice:
        """Mark the experts of the taken ranks, by affinity plus bias.

        Args:
            taken: whether the expert of each rank is taken, from the best on.
            logits: logits from `score`, which mark the dropped experts.
            affinity: affinity of each expert.
            inputs: inputs of the router, with the bias of the recipe.
        """
        # The bias changes the order of the experts, never the number of them.
        return first_of(taken, logits, biased(self.wanted(affinity), inputs), inputs)

    def after_step(self, trace: LayerTrace) -> None:
        """Move T towards the threshold that spends `mean_experts`."""
        super().after_step(trace)
        if self.mode == "controlled":
            # By the mask, which is charged: `mean_experts` is the number in the budget. A skip
            # is no expert.
            taken = trace.plan.mask[..., : self.num_experts].sum(-1).float().mean()
            step = self.control_rate * (self.mean_experts - taken)
            self.threshold.add_(step).clamp_(*self.limits)
