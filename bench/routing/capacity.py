"""Turn scores into choices: top-k in training, a calibrated threshold in evaluation.

Top-k over a sequence compares a token with later ones, so it is for training only. Evaluation
compares each score with a threshold: `score + knob > 0`. The harness bisects `knob` on the
calibration split until the mean spend meets the budget.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bench.routing.contract import RouterInput, RouterSpec, RoutingPlan


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
