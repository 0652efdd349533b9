"""Define routers to one expert by any gradient estimator, and to merged experts."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bench.routing import (
    AuxLoss,
    Router,
    RouterInput,
    RouterSpec,
    RoutingPlan,
    experts,
    losses,
    perturb,
    register,
    top_experts,
)
from bench.routing.estimators import (
    EstimatorOptions,
    dselect_k,
    gumbel,
    highest,
    sample,
    scale,
    soft,
    st_gumbel,
    straight_through,
)

ExpertEstimator = Literal[
    "top_k", "straight_through", "st_gumbel", "reinforce", "dselect_k", "soft"
]
SELECTOR_STD = 0.1
"""Standard deviation of the selector's activations at the start.

The smooth step is flat only beyond 0.5, so all experts are in use then.
"""


@register("estimated_moe", family="experts", paper="arXiv:2306.03745")
class Estimated(Router):
    """A learned linear router to one expert, by one of the gradient estimators of SMEAR's study.

    Evaluation takes the most probable expert, without noise. "soft" runs all experts there too, and
    so is over the budget. In training, "soft" runs every expert and pays for it, and so do
    "straight_through" and "st_gumbel" if they are dense. "dselect_k" runs those whose weight is not
    0.

    Args:
        num_experts: size of the bank.
        estimator: source of the router's gradient.
        estimator_options: fields of `bench.routing.estimators.EstimatorOptions`, by name.
        balance: weight of the load-balancing loss; the authors train without one.
    """

    pointwise = True

    def __init__(
        self,
        num_experts: int = 8,
        estimator: ExpertEstimator = "top_k",
        estimator_options: Mapping[str, Any] | None = None,
        balance: float = 0.0,
    ) -> None:
        super().__init__()
        if num_experts < 2:
            raise ValueError(
                f"num_experts is {num_experts}; at least 2 are needed to choose among."
            )
        if estimator not in get_args(ExpertEstimator):
            raise ValueError(
                f"estimator is {estimator!r}; allowed are {', '.join(get_args(ExpertEstimator))}."
            )
        self.num_experts, self.estimator = num_experts, estimator
        self.estimation = EstimatorOptions.read(estimator_options, estimator)
        self.paths = experts(num_experts)
        straight = estimator in ("straight_through", "st_gumbel")
        self.trains_dense = estimator in ("dselect_k", "soft") or (
            straight and self.estimation.dense
        )
        self.aux_losses["load_balance"] = AuxLoss(losses.load_balance, balance)
        if estimator == "dselect_k":
            self.aux_losses["entropy"] = AuxLoss(losses.entropy, 0.1, layers="mean")
        if estimator == "reinforce":
            self.needs = frozenset({"token_loss"})
            kind = self.estimation.credit
            self.aux_losses["policy_gradient"] = AuxLoss(
                partial(losses.policy_gradient, kind=kind), 0.01, layers="mean"
            )
            self.aux_losses["baseline"] = AuxLoss(
                partial(losses.baseline, kind=kind), 0.01, layers="mean"
            )
            self.aux_losses["entropy"] = AuxLoss(losses.entropy, 5e-4, layers="mean")

    def build(self, spec: RouterSpec) -> None:
        """Make the matrix of the logits, or of the selector.

        The selector has a column for each bit of an expert's binary code.
        """
        super().build(spec)
        if self.estimator == "reinforce":
            self.baseline = nn.Linear(spec.d_model, 1)
        selector = self.estimator == "dselect_k"
        self.logits = nn.Linear(
            spec.d_model,
            (self.num_experts - 1).bit_length() if selector else self.num_experts,
            bias=False,
        )
        if selector:
            nn.init.normal_(self.logits.weight, std=SELECTOR_STD * spec.d_model**-0.5)

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        """Choose an expert for every token."""
        # A selector's bits are no scores of experts, so it takes no noise of the recipe.
        logits = self.logits(inputs.hidden)
        if self.estimator == "dselect_k":
            return self._select(dselect_k(logits, self.num_experts), inputs)
        logits = perturb(logits, inputs)
        p = logits.softmax(-1)
        # Straight-through estimators choose in both passes; "soft" never does.
        if self.estimator == "soft":
            return RoutingPlan(*soft(p), logits, choice=highest(p))
        if self.estimator == "reinforce" and inputs.selection == "topk":
            extras = {"baseline": self.baseline(inputs.hidden.detach()).squeeze(-1)}
            return RoutingPlan(sample(logits, inputs.generator), None, logits, extras=extras)
        if self.estimator == "st_gumbel" and inputs.selection == "topk":
            perturbed = logits + gumbel(logits, inputs.generator)
            temperature = self.estimation.temperature_at("st_gumbel", inputs.progress)
            drawn = highest(perturbed)
            return RoutingPlan(
                *st_gumbel(perturbed, drawn, temperature, self.estimation.dense),
                logits,
                choice=drawn,
            )
        chosen = torch.zeros_like(logits, dtype=torch.bool).scatter(
            -1, top_experts(logits, 1, inputs), True
        )
        if self.estimator == "top_k":
            return RoutingPlan(*scale(p, chosen), logits)
        if self.estimator == "straight_through" and inputs.selection == "topk":
            return RoutingPlan(
                *straight_through(p, chosen, self.estimation.dense), logits, choice=chosen
            )
        return RoutingPlan(chosen, None, logits)

    def _select(self, p: Float[Tensor, "batch seq path"], inputs: RouterInput) -> RoutingPlan:
        """Return all experts of the selector's mixture in training, the heaviest in evaluation.

        The weights of the mixture add up to 1. The heaviest alone has weight 1.
        """
        scores, extras = p.clamp_min(1e-9).log(), {"probability": p}
        if inputs.selection == "causal":
            return RoutingPlan(highest(p), None, scores, extras=extras)
        return RoutingPlan(p > 0, p, scores, extras=extras, choice=highest(p))


@register("smear", family="experts", paper="arXiv:2306.03745")
class Smear(Router):
    """Experts merged into one, `sum_e p_e theta_e`, for each segment of a sequence.

    The weights come from the mean hidden state of the segment before. The paper merges once per
    sequence, by the sequence's own mean. In a decoder, that would show later tokens to the first
    one. Segments are those of Lory (arXiv:2405.03133). The first segment has no past, and takes all
    experts alike.

    Args:
        num_experts: size of the bank.
        segment: tokens that share a merged expert; each merge costs twice the parameters of the
            bank in FLOPs.
        expert_dropout: probability that an expert is left out of the merge of a sequence in
            training.
    """

    def __init__(
        self, num_experts: int = 8, segment: int = 16, expert_dropout: float = 0.1
    ) -> None:
        super().__init__()
        if num_experts < 2:
            raise ValueError(f"num_experts is {num_experts}; at least 2 are needed to merge.")
        if not 0 <= expert_dropout < 1:
            raise ValueError(
                f"expert_dropout is {expert_dropout}; it must be at least 0 and below 1."
            )
        self.num_experts, self.segment, self.expert_dropout = num_experts, segment, expert_dropout
        self.paths = experts(num_experts, segment)

    def build(self, spec: RouterSpec) -> None:
        """Make the matrix of the logits."""
        super().build(spec)
        self.logits = nn.Linear(spec.d_model, self.num_experts, bias=False)

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        """Weigh the experts of each segment by the segment before."""
        # Logits of 0 for the first segment: equal weights.
        hidden = inputs.hidden
        before = [part.mean(1) for part in hidden.split(self.segment, dim=1)[:-1]]
        logits = self.logits(torch.stack([torch.zeros_like(hidden[:, 0]), *before], dim=1))
        if inputs.selection == "topk" and self.expert_dropout:
            logits = logits + self._dropped(inputs, logits)
        merge = logits.softmax(-1)
        # One merged expert runs; for the monitors a token counts on the heaviest part.
        by_token: Int[Tensor, "batch seq"] = merge.argmax(-1).repeat_interleave(
            self.segment, dim=1
        )[:, : hidden.shape[1]]
        scores = logits.repeat_interleave(self.segment, dim=1)[:, : hidden.shape[1]]
        mask = torch.zeros_like(scores, dtype=torch.bool).scatter(2, by_token.unsqueeze(-1), True)
        return RoutingPlan(mask, scores=scores, merge=merge)

    def _dropped(self, inputs: RouterInput, like: Tensor) -> Float[Tensor, "batch 1 path"]:
        """Return a very negative score for the dropped experts of a sequence, 0 for the others.

        The expert with the highest draw always stays.
        """
        draw = torch.rand(
            len(inputs.tokens), 1, self.num_experts, generator=inputs.generator, device=like.device
        )
        gone = (draw < self.expert_dropout).scatter(-1, draw.argmax(-1, keepdim=True), False)
        return gone.to(like.dtype) * -1e4
