"""Gradient estimators of a discrete choice among paths, as pure functions.

A choice is a mask, which paths run, and a weight, the factor on each path's output. What the
estimators differ in is what the weight lets the loss tell the scores. They were compared by Muqeeth
et al. (SMEAR, arXiv:2306.03745, section 4), whose settings are the defaults here. Logits and
probabilities are `[..., path]`; a gate's logits are those of (base, upgrade), (0, s).
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Probabilities = Float[Tensor, "*token path"]
Mask = Bool[Tensor, "*token path"]
Choice = tuple[Mask, Float[Tensor, "*token path"] | None]
"""Which paths run, and the factors on their outputs; None for 1."""

Credit = Literal["following", "own"]

TEMPERATURES: Mapping[str, tuple[float, float]] = {"relaxed": (1.0, 0.1), "st_gumbel": (10.0, 0.5)}
"""At the beginning and at the end of training.

Those of `st_gumbel` are the authors', those of `relaxed` our choice.
"""


@dataclass(frozen=True)
class EstimatorOptions:
    """What an estimator leaves open.

    Attributes:
        dense: run all paths in training for `straight_through` and `st_gumbel`, so that the
            gradient compares them, at the price of all. By default the chosen path alone runs, as
            in the code of SMEAR's authors: its weight alone has a gradient.
        temperature: of `relaxed` and `st_gumbel` at the beginning and at the end of training; None
            for `TEMPERATURES`.
        credit: losses that `reinforce` blames on a choice: the mean of the token's own and the
            "following" ones of the sequence, or its "own" alone.
    """

    dense: bool = False
    temperature: tuple[float, float] | None = None
    credit: Credit = "following"

    @classmethod
    def read(cls, given: Mapping[str, Any] | None) -> "EstimatorOptions":
        """Options by name.

        Raises:
            ValueError: an unknown name, or a value that is not allowed.
        """
        given = dict(given or {})
        known = [field.name for field in fields(cls)]
        if strange := sorted(set(given) - set(known)):
            raise ValueError(f"estimator_options has {strange}; known are {known}.")
        temperature = given.get("temperature")
        if temperature is not None:
            if len(temperature) != 2 or min(temperature) <= 0:
                raise ValueError(
                    f"temperature is {temperature}; it must be two numbers above 0, for the beginning and the end."
                )
            given["temperature"] = float(temperature[0]), float(temperature[1])
        if given.get("credit", "own") not in get_args(Credit):
            raise ValueError(f"credit is {given['credit']!r}; allowed are 'following', 'own'.")
        return cls(**given)

    def temperature_at(self, estimator: str, progress: float) -> float:
        """The temperature of an estimator, after a share of training.

        It falls by the same factor in equal times.
        """
        start, end = self.temperature or TEMPERATURES[estimator]
        return start ** (1 - progress) * end**progress


def highest(logits: Float[Tensor, "*token path"], count: int = 1) -> Mask:
    """Mark the `count` highest of each token."""
    return torch.zeros_like(logits, dtype=torch.bool).scatter(
        -1, logits.topk(count, dim=-1).indices, True
    )


def scale(p: Probabilities, chosen: Mask) -> Choice:
    """The chosen paths run, their outputs scaled by their probability, through which the gradient
    comes (Switch, arXiv:2101.03961).
    """
    return chosen, p


def top_k(p: Probabilities, count: int = 1) -> Choice:
    """`scale` with the `count` most probable paths chosen."""
    return scale(p, highest(p, count))


def soft(p: Probabilities) -> Choice:
    """All paths run, weighed by probability; no estimate, and as dear as all paths together."""
    return torch.ones_like(p, dtype=torch.bool), p


def relaxed(logits: Float[Tensor, "*token path"], temperature: float) -> Choice:
    """All paths run in training, mixed by probabilities that grow harder as the temperature falls;
    evaluation is to choose one.
    """
    return soft((logits / temperature).softmax(-1))


def straight_through(p: Probabilities, chosen: Mask, dense: bool = False) -> Choice:
    """Forward the weight is 1 for the chosen path, backward it is p (Bengio et al.,
    arXiv:1308.3432, section 3).

    Args:
        p: probabilities.
        chosen: the path of each token.
        dense: run all paths, those not chosen with weight 0, so that the gradient compares them;
            else the chosen path alone runs and has a gradient.
    """
    weight = chosen.to(p.dtype) + (p - p.detach())
    return torch.ones_like(chosen) if dense else chosen, weight


def gumbel(
    like: Float[Tensor, "*token path"], generator: torch.Generator | None
) -> Float[Tensor, "*token path"]:
    """Standard Gumbel noise.

    Logits plus this are highest where a draw from the softmax of the logits would fall.
    """
    uniform = torch.rand(like.shape, generator=generator, device=like.device).clamp(1e-20, 1 - 1e-7)
    return -(-uniform.log()).log()


def st_gumbel(
    perturbed: Float[Tensor, "*token path"], chosen: Mask, temperature: float, dense: bool = False
) -> Choice:
    """Straight-through Gumbel-softmax (Jang et al., arXiv:1611.01144, section 2.2).

    Args:
        perturbed: logits plus `gumbel` noise.
        chosen: the path of each token, by the perturbed logits.
        temperature: of the softmax that the backward pass takes the gradient of.
        dense: as of `straight_through`.
    """
    return straight_through((perturbed / temperature).softmax(-1), chosen, dense)


def sample(logits: Float[Tensor, "*token path"], generator: torch.Generator | None) -> Mask:
    """Draw one path a token from the softmax of the logits."""
    return highest(logits + gumbel(logits, generator))


def credit(token_loss: Float[Tensor, "batch seq"], kind: Credit) -> Float[Tensor, "batch seq"]:
    """Loss that REINFORCE blames on the choice at each token.

    The mean from there to the sequence's end, or that token's own.
    """
    if kind == "own":
        return token_loss
    left = torch.arange(token_loss.shape[1], 0, -1, device=token_loss.device)
    return token_loss.flip(1).cumsum(1).flip(1) / left


def smooth_step(x: Float[Tensor, "..."], gamma: float = 1.0) -> Float[Tensor, "..."]:
    """A cubic from 0 at -gamma / 2 to 1 at gamma / 2, flat outside (DSelect-k, arXiv:2106.03760,
    equation 4).
    """
    t = x.clamp(-gamma / 2, gamma / 2) / gamma
    return 0.5 + t * (1.5 - 2 * t.square())


def dselect_k(
    bits: Float[Tensor, "*token bit"], num_paths: int, gamma: float = 1.0
) -> Probabilities:
    """Weights of a selector of one path by its binary code (DSelect-k, arXiv:2106.03760, section
    3.2); exact zeros are common.

    Where the paths are no power of 2 the codes left over stand for paths from the first on, which
    keeps the sum at 1 (our choice).

    Args:
        bits: `ceil(log2(num_paths))` activations.
        num_paths: paths to choose among.
        gamma: width of the smooth step.
    """
    step = smooth_step(bits, gamma)
    found = torch.ones_like(step[..., :1])
    for one in step.unsqueeze(-1).unbind(-2):  # bit i of a code is worth 2^i
        found = torch.cat((found * (1 - one), found * one), dim=-1)
    extra = found[..., num_paths:]
    return torch.cat(
        (found[..., : extra.shape[-1]] + extra, found[..., extra.shape[-1] : num_paths]), dim=-1
    )
