"""Change scores and rank experts by them: noise, expert dropout, balance bias, hashed noise."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bench.rng import hash_uniform
from bench.routing.contract import RouterInput, RouterSpec

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
