"""Turning scores into choices: whole-sequence top-k in training, a calibrated threshold in
evaluation.

Top-k over a sequence compares a token with later ones, so it may only be used in training.
Evaluation compares each score with a threshold, `score + knob > 0`, where the harness has bisected
`knob` on the calibration split until the mean spend meets the budget.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bench.rng import hash_uniform
from bench.routing.contract import RouterInput, RouterSpec, RoutingPlan

DROPPED = -1e4
"""Score of a dropped expert.

Its probability is 0 at any temperature in use, and products with it stay finite.
"""


def perturb(
    scores: Float[Tensor, "batch *rest"], inputs: RouterInput
) -> Float[Tensor, "batch *rest"]:
    """Scores as the recipe perturbs them in training, with noise or dropped experts; as they are in
    evaluation.

    A learned router passes its scores, `[batch, seq]` of an upgrade or one a path, through here
    before it chooses or weighs.
    """
    if inputs.noise is None or inputs.selection != "topk":
        return scores
    return inputs.noise.perturb(scores, inputs.hidden, inputs.generator)


def biased(
    probabilities: Float[Tensor, "*token path"], inputs: RouterInput
) -> Float[Tensor, "*token path"]:
    """What to choose experts by: probabilities plus the bias that balances them.

    Weigh by the probabilities themselves.
    """
    return probabilities if inputs.noise is None else inputs.noise.biased(probabilities)


def top_experts(
    scores: Float[Tensor, "*token path"], count: int, inputs: RouterInput
) -> Int[Tensor, "*token count"]:
    """The `count` experts with the highest scores.

    Where a bias balances them, with the highest biased softmax probability.
    """
    if inputs.noise is not None and inputs.noise.bias is not None:
        scores = biased(scores.softmax(-1), inputs).masked_fill(scores <= DROPPED, -torch.inf)
    return scores.topk(count).indices


def tokens_kept(capacity: float, seq_len: int) -> int:
    """Number of tokens of a sequence that a capacity stands for, rounded to the nearest."""
    return round(capacity * seq_len)


def top_k_mask(scores: Float[Tensor, "batch seq"], count: int) -> Bool[Tensor, "batch seq"]:
    """Mark the `count` highest scores of each sequence."""
    chosen = scores.topk(count, dim=1).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter(1, chosen, True)


def upgrade(
    scores: Float[Tensor, "batch seq"],
    inputs: RouterInput,
    spec: RouterSpec,
    knob: Float[Tensor, ""] | None,
) -> tuple[Bool[Tensor, "batch seq"], int | None]:
    """Choose the tokens to upgrade from the base path.

    Returns:
        The choice, and how many tokens a sequence were chosen if that is known beforehand.
    """
    if inputs.selection == "topk":
        count = tokens_kept(spec.capacity, scores.shape[1])
        return top_k_mask(scores.detach(), count), count
    threshold = 0.0 if knob is None else -knob
    return scores > threshold, None


def gate_plan(
    chosen: Bool[Tensor, "batch seq"],
    count: int | None,
    scores: Float[Tensor, "batch seq"] | None = None,
    weights: tuple[Tensor, Tensor] | None = None,
) -> RoutingPlan:
    """Build the plan of a router with a base path from the choice it made.

    Args:
        chosen: tokens that take the upgrade; all others take the base.
        count: number of chosen tokens a sequence, if known beforehand.
        scores: score of the upgrade; the base's is 0.
        weights: factors on the outputs of (base, upgrade), `[batch, seq]` each; None for 1.
    """
    mask = torch.stack((~chosen, chosen), dim=-1)
    weight = None if weights is None else torch.stack(weights, dim=-1)
    both = None if scores is None else torch.stack((torch.zeros_like(scores), scores), dim=-1)
    counts = None if count is None else (chosen.shape[1] - count, count)
    return RoutingPlan(mask, weight, both, counts)


def hash_noise(
    spec: RouterSpec, inputs: RouterInput, *extra: Int[Tensor, "..."] | int
) -> Float[Tensor, "..."]:
    """Uniform noise that is a hash of (seed, layer, position, token, extra).

    For choices that must survive evaluation.
    """
    positions, tokens = inputs.positions, inputs.tokens
    if extra:
        positions, tokens = positions.unsqueeze(-1), tokens.unsqueeze(-1)
    return hash_uniform(spec.seed, spec.layer, positions, tokens, *extra)
