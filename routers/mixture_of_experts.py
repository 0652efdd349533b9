"""Token-choice experts: a fixed number of experts a token, or one or two by the router's
confidence.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bench.routing import (
    AuxLoss,
    LayerTrace,
    Router,
    RouterInput,
    RouterSpec,
    RoutingPlan,
    TrainStatistics,
    biased,
    experts,
    hash_uniform,
    perturb,
    register,
    top_experts,
)
from bench.routing.losses import load_balance, load_balance_single, router_z


class _TokenChoice(Router):
    """A linear router with softmax probabilities over a bank of experts."""

    def __init__(self, num_experts: int, renormalise: bool, z_loss: float) -> None:
        super().__init__()
        if num_experts < 2:
            raise ValueError(
                f"num_experts is {num_experts}; at least 2 are needed to choose among."
            )
        self.num_experts, self.renormalise = num_experts, renormalise
        self.paths = experts(num_experts)
        self.aux_losses["router_z"] = AuxLoss(router_z, z_loss)

    def build(self, spec: RouterSpec) -> None:
        """Make the logits' matrix."""
        super().build(spec)
        self.logits = nn.Linear(spec.d_model, self.num_experts, bias=False)

    def _plan(
        self, mask: Bool[Tensor, "batch seq path"], logits: Float[Tensor, "batch seq path"]
    ) -> RoutingPlan:
        weight = logits.softmax(-1) * mask
        if self.renormalise:
            # the share of a token's only expert is 1 whatever its score, which would leave the
            # router without a gradient: such a token keeps its probability
            shared = mask.sum(-1, keepdim=True) > 1
            weight = torch.where(shared, weight / weight.sum(-1, keepdim=True), weight)
        return RoutingPlan(mask, weight, logits)


@register("top2_moe", family="experts", paper="arXiv:2006.16668")
class Top2(_TokenChoice):
    """The two most probable experts for every token, weighed by renormalised probability (GShard),
    without a capacity limit.

    Args:
        num_experts: size of the bank.
        renormalise: weigh the chosen by their share of the chosen probability, instead of the
            probability itself.
        balance: weight of the load-balancing loss, a sum over layers.
        z_loss: weight of the z-loss.
    """

    mean_experts = 2.0

    def __init__(
        self,
        num_experts: int = 8,
        renormalise: bool = True,
        balance: float = 0.01,
        z_loss: float = 0.0,
    ) -> None:
        super().__init__(num_experts, renormalise, z_loss)
        self.aux_losses["load_balance"] = AuxLoss(load_balance, balance)

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        """Take the top two."""
        logits = perturb(self.logits(inputs.hidden), inputs)
        mask = torch.zeros_like(logits, dtype=torch.bool).scatter(
            2, top_experts(logits, 2, inputs), True
        )
        return self._plan(mask, logits)


@register("adaptive_moe", family="experts", paper="arXiv:2310.07188")
class Adaptive(_TokenChoice):
    """One expert where the router is sure, two where it is not: both run if `p(1) - p(2) <= T`.

    Args:
        num_experts: size of the bank; the paper has 16.
        mean_experts: experts a token is to take on average; fixes the width of an expert and is
            what T is moved for.
        threshold: "controlled" moves T during training to hold `mean_experts`; "fixed" keeps it at
            `initial_threshold`, as in the paper, whose budget is then whatever comes of it.
        initial_threshold: T at the start.
        control_rate: step of T for each unit that the mean is off.
        renormalise: weigh two experts by their share of the chosen probability, instead of the
            probability itself. A token with one expert keeps the probability, since a share of 1
            would have no gradient.
        balance: weight of the balance loss over tokens with one expert, a sum over layers.
        z_loss: weight of the z-loss.
    """

    threshold: Tensor

    def __init__(
        self,
        num_experts: int = 8,
        mean_experts: float = 1.2,
        threshold: Literal["controlled", "fixed"] = "controlled",
        initial_threshold: float = 0.1,
        control_rate: float = 0.02,
        renormalise: bool = False,
        balance: float = 0.01,
        z_loss: float = 0.0,
    ) -> None:
        super().__init__(num_experts, renormalise, z_loss)
        if not 1 <= mean_experts <= 2:
            raise ValueError(
                f"mean_experts is {mean_experts}; a token takes one or two experts, so it must lie in [1, 2]."
            )
        if threshold not in ("controlled", "fixed"):
            raise ValueError(f"threshold is {threshold!r}; allowed are 'controlled', 'fixed'.")
        self.mean_experts, self.mode = mean_experts, threshold
        self.initial_threshold, self.control_rate = initial_threshold, control_rate
        self.aux_losses["load_balance"] = AuxLoss(load_balance_single, balance)

    def build(self, spec: RouterSpec) -> None:
        """Make the logits' matrix and the threshold's state."""
        super().build(spec)
        self.register_buffer("threshold", torch.tensor(self.initial_threshold))
        if self.mode == "controlled":
            self.enable_knob()

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        """Take the second expert too where the first leads by no more than T."""
        logits = perturb(self.logits(inputs.hidden), inputs)
        p = logits.softmax(-1)
        index = biased(p, inputs).topk(2).indices
        top = p.topk(2).values  # confidence is the router's own: a bias moves the choice alone
        threshold = self.threshold if inputs.selection == "topk" or self.knob is None else self.knob
        second = top[..., 0] - top[..., 1] <= threshold
        chosen = torch.stack((torch.ones_like(second), second), dim=-1)
        mask = torch.zeros_like(logits, dtype=torch.bool).scatter(2, index, chosen)
        return self._plan(mask, logits)

    def after_step(self, trace: LayerTrace) -> None:
        """Move T towards the threshold that spends `mean_experts`."""
        if self.mode == "controlled":
            taken = trace.plan.mask.sum(-1).float().mean()
            self.threshold.add_(self.control_rate * (self.mean_experts - taken)).clamp_(0, 1)


@register("hash", family="heuristic", paper="arXiv:2106.04426")
class Hash(Router):
    """Each token id always takes the same expert (Hash Layers); nothing is learnt.

    Args:
        num_experts: size of the bank.
        assignment: "balanced" gives the commonest token ids away first, each to the expert with the
            least text so far (section 3.1, the assignment of the paper's main results); "random"
            draws an expert for each.

    Raises:
        ValueError: an option that is not allowed.
    """

    expert: Tensor

    def __init__(
        self, num_experts: int = 8, assignment: Literal["balanced", "random"] = "balanced"
    ) -> None:
        super().__init__()
        if num_experts < 2:
            raise ValueError(
                f"num_experts is {num_experts}; at least 2 are needed to choose among."
            )
        if assignment not in ("balanced", "random"):
            raise ValueError(f"assignment is {assignment!r}; allowed are 'balanced', 'random'.")
        self.num_experts, self.assignment = num_experts, assignment
        self.paths = experts(num_experts)

    def build(self, spec: RouterSpec) -> None:
        """Draw the table of experts, `[vocab]`."""
        super().build(spec)
        ids = torch.arange(spec.vocab_size)
        self.register_buffer(
            "expert", (hash_uniform(spec.seed, spec.layer, ids) * self.num_experts).long()
        )

    def fit(self, statistics: TrainStatistics) -> None:
        """Balance the table by the counts of the training text."""
        if self.assignment == "random":
            return
        counts = statistics.unigram.cpu()
        # counts are whole, so that a start below 1 tells equal loads apart and nothing else:
        # layers and seeds differ
        paths = torch.arange(self.num_experts)
        loads = hash_uniform(self.spec.seed, self.spec.layer, paths).double()
        table = torch.zeros_like(counts)
        for token in counts.argsort(descending=True, stable=True):
            emptiest = loads.argmin()
            table[token] = emptiest
            loads[emptiest] += counts[token]
        self.expert.copy_(table)

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        """Look up the expert of each token."""
        expert: Int[Tensor, "batch seq"] = self.expert[inputs.tokens]
        mask = torch.zeros(*expert.shape, self.num_experts, dtype=torch.bool, device=expert.device)
        return RoutingPlan(mask.scatter(2, expert.unsqueeze(-1), True))
