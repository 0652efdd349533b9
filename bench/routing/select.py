"""Turn scores into choices: top-k in training, a calibrated threshold in evaluation.

Top-k over a sequence compares a token with later ones, so it is for training only. Evaluation
compares each score with a threshold: `score + knob > 0`. The harness bisects `knob` on the
calibration split until the mean spend meets the budget.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bench.rng import hash_uniform
from bench.routing.contract import RouterInput, RouterSpec, RoutingPlan

DROPPED = -1e4
"""Score of a dropped expert: its probability is 0, and products with it stay finite."""


def perturb(
    scores: Float[Tensor, "batch *rest"], inputs: RouterInput
) -> Float[Tensor, "batch *rest"]:
    """Add the recipe's noise and expert dropout to scores in training, and nothing in evaluation.

    A learned router passes its scores through here before it chooses or weighs: `[batch, seq]` for
    an upgrade, or one score per path.
    """
    if inputs.noise is None or inputs.selection != "topk":
        return scores
    return inputs.noise.perturb(scores, inputs.hidden, inputs.generator)


def biased(
    probabilities: Float[Tensor, "*token path"], inputs: RouterInput
) -> Float[Tensor, "*token path"]:
    """Add the balance bias to probabilities, for choosing experts.

    Weigh the experts by the probabilities without it.
    """
    return probabilities if inputs.noise is None else inputs.noise.biased(probabilities)


def top_experts(
    scores: Float[Tensor, "*token path"],
    count: int,
    inputs: RouterInput,
    wanted: Float[Tensor, "*token path"] | None = None,
) -> Int[Tensor, "*token count"]:
    """Return the `count` most wanted experts, dropped ones last.

    Args:
        scores: scores from `perturb`.
        count: number of experts per token.
        inputs: inputs of the router; the recipe's bias is added to `wanted`.
        wanted: values to choose by; None for the softmax of the scores.
    """
    balanced = inputs.noise is not None and inputs.noise.bias is not None
    if wanted is None and not balanced:
        return scores.topk(count).indices
    wanted = scores.softmax(-1) if wanted is None else wanted
    # A dropped expert must not come back by its bias.
    return biased(wanted, inputs).masked_fill(scores <= DROPPED, -torch.inf).topk(count).indices


def tokens_kept(capacity: float, seq_len: int) -> int:
    """Return the number of tokens in a capacity, rounded to the nearest."""
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
        The choice, and the number of chosen tokens per sequence if it is known beforehand.
    """
    if inputs.selection == "topk":
        count = tokens_kept(spec.capacity, scores.shape[1])
        return top_k_mask(scores.detach(), count), count
    # A router without a knob has a fixed threshold of 0.
    threshold = 0.0 if knob is None else -knob
    return scores > threshold, None


def gate_plan(
    chosen: Bool[Tensor, "batch seq"],
    count: int | None,
    scores: Float[Tensor, "batch seq"] | None = None,
    weights: tuple[Tensor, Tensor] | None = None,
) -> RoutingPlan:
    """Build the plan of a router with a base path from its choice.

    Args:
        chosen: tokens that take the upgrade. All others take the base.
        count: number of chosen tokens per sequence, if known beforehand.
        scores: score of the upgrade. The base's score is 0.
        weights: factors on the outputs of (base, upgrade), `[batch, seq]` each; None for 1.
    """
    # All tensors of a plan are [batch, seq, path], with the base first.
    mask = torch.stack((~chosen, chosen), dim=-1)
    weight = None if weights is None else torch.stack(weights, dim=-1)
    both = None if scores is None else torch.stack((torch.zeros_like(scores), scores), dim=-1)
    counts = None if count is None else (chosen.shape[1] - count, count)
    return RoutingPlan(mask, weight, both, counts)


def hash_noise(
    spec: RouterSpec, inputs: RouterInput, *extra: Int[Tensor, "..."] | int
) -> Float[Tensor, "..."]:
    """Return uniform noise, a hash of (seed, layer, position, token, extra).

    It is the same in any batch and in decoding, so evaluation may use it.
    """
    # Further parts are one number per path, so tokens get a last axis.
    positions, tokens = inputs.positions, inputs.tokens
    if extra:
        positions, tokens = positions.unsqueeze(-1), tokens.unsqueeze(-1)
    return hash_uniform(spec.seed, spec.layer, positions, tokens, *extra)
