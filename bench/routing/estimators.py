"""Estimate the gradient of a discrete choice among paths, by pure functions.

A choice is a mask of the paths to run and a weight, the factor on each path's output. The gradient
reaches the scores through the weight, and the estimators differ in that weight. Muqeeth et al.
compared them (SMEAR, arXiv:2306.03745, section 4), and their settings are the defaults here. Logits
and probabilities are `[..., path]`. A gate's logits for (base, upgrade) are (0, s).
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Probabilities = Float[Tensor, "*token path"]
Mask = Bool[Tensor, "*token path"]
Estimate = tuple[Mask, Float[Tensor, "*token path"] | None]
"""Mask of the paths to run, and the factors on their outputs; None for 1."""

Credit = Literal["following", "own"]

TEMPERATURES: Mapping[str, tuple[float, float]] = {"relaxed": (1.0, 0.1), "st_gumbel": (10.0, 0.5)}
"""Estimator -> temperature at the beginning and at the end of training.

For `st_gumbel` they are the authors', for `relaxed` our choice.
"""
READERS: Mapping[str, tuple[str, ...]] = {
    "dense": ("straight_through", "st_gumbel"),
    "temperature": tuple(TEMPERATURES),
    "credit": ("reinforce",),
}
"""Option -> estimators that read it."""


@dataclass(frozen=True)
class EstimatorOptions:
    """Free parameters of the estimators.

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
    def read(cls, given: Any, estimator: str) -> "EstimatorOptions":
        """Read the options of an estimator, by name. An option that is None is left at its default.

        Raises:
            ValueError: no mapping, an unknown name, a value that is not allowed, or an option that
                the estimator does not read.
        """
        known = [field.name for field in fields(cls)]
        if given is not None and not isinstance(given, Mapping):
            raise ValueError(f"estimator_options is {given!r}; allowed is a mapping of {known}.")
        named: Mapping[str, Any] = given or {}
        values = {name: value for name, value in named.items() if value is not None}
        if strange := sorted(set(values) - set(known)):
            raise ValueError(f"estimator_options has {strange}; known are {known}.")
        for name, value in values.items():
            if estimator not in READERS[name]:
                raise ValueError(
                    f"estimator_options has {name} {value!r}, which is of "
                    f"{' and '.join(READERS[name])} alone, and estimator is {estimator!r}. "
                    "Leave it out."
                )
        if not isinstance(values.get("dense", False), bool):
            raise ValueError(f"dense is {values['dense']!r}; allowed are true, false.")
        if values.get("credit", "own") not in get_args(Credit):
            raise ValueError(f"credit is {values['credit']!r}; allowed are 'following', 'own'.")
        if "temperature" in values:
            values["temperature"] = _both_ends(values["temperature"])
        return cls(**values)

    def temperature_at(self, estimator: str, progress: float) -> float:
        """Return the temperature of an estimator after a share of training.

        It falls by equal factors in equal times.
        """
        start, end = self.temperature or TEMPERATURES[estimator]
        return start ** (1 - progress) * end**progress


def _both_ends(temperature: Any) -> tuple[float, float]:
    """Return the temperatures of the beginning and the end of training."""
    match temperature:
        case [int() | float() as start, int() | float() as end] if start > 0 and end > 0:
            return float(start), float(end)
        case _:
            raise ValueError(
                f"temperature is {temperature!r}; it must be two numbers above 0, for the "
                "beginning and the end, such as [10, 0.5]."
            )


def highest(logits: Float[Tensor, "*token path"], count: int = 1) -> Mask:
    """Mark the `count` highest logits of each token."""
    return torch.zeros_like(logits, dtype=torch.bool).scatter(
        -1, logits.topk(count, dim=-1).indices, True
    )


def scale(p: Probabilities, chosen: Mask) -> Estimate:
    """Run the chosen paths, with outputs scaled by their probabilities.

    The gradient comes through the probabilities (Switch Transformer, arXiv:2101.03961).
    """
    return chosen, p


def soft(p: Probabilities) -> Estimate:
    """Run all paths, weighed by probability. The gradient is exact, and every path costs."""
    return torch.ones_like(p, dtype=torch.bool), p


def relaxed(logits: Float[Tensor, "*token path"], temperature: float) -> Estimate:
    """Mix all paths by probabilities that grow harder as the temperature falls.

    Evaluation chooses one path instead.
    """
    return soft((logits / temperature).softmax(-1))


def straight_through(p: Probabilities, chosen: Mask, dense: bool = False) -> Estimate:
    """Weigh the chosen path by 1 forward and by p backward.

    From Bengio et al. (arXiv:1308.3432), section 3.

    Args:
        p: probabilities.
        chosen: the path of each token.
        dense: run all paths, the others with weight 0, so that the gradient compares them; else
            the chosen path alone runs and has a gradient.
    """
    # The bracket is 0 forward and has the gradient of p.
    weight = chosen.to(p.dtype) + (p - p.detach())
    return torch.ones_like(chosen) if dense else chosen, weight


def gumbel(
    like: Float[Tensor, "*token path"], generator: torch.Generator | None
) -> Float[Tensor, "*token path"]:
    """Draw standard Gumbel noise.

    The highest of logits plus this noise is a draw from the softmax of the logits.
    """
    # Both ends are cut off, because the logarithms would be infinite there.
    uniform = torch.rand(like.shape, generator=generator, device=like.device).clamp(1e-20, 1 - 1e-7)
    return -(-uniform.log()).log()


def st_gumbel(
    perturbed: Float[Tensor, "*token path"], chosen: Mask, temperature: float, dense: bool = False
) -> Estimate:
    """Straight-through Gumbel-softmax (Jang et al., arXiv:1611.01144, section 2.2).

    Args:
        perturbed: logits plus `gumbel` noise.
        chosen: the path of each token, by the perturbed logits.
        temperature: temperature of the softmax in the backward pass.
        dense: see `straight_through`.
    """
    return straight_through((perturbed / temperature).softmax(-1), chosen, dense)


def sample(logits: Float[Tensor, "*token path"], generator: torch.Generator | None) -> Mask:
    """Draw one path per token from the softmax of the logits."""
    return highest(logits + gumbel(logits, generator))


def credit(token_loss: Float[Tensor, "batch seq"], kind: Credit) -> Float[Tensor, "batch seq"]:
    """Return the loss that REINFORCE attributes to the choice at each token.

    It is the token's own loss, or the mean loss from there to the end of the sequence.
    """
    if kind == "own":
        return token_loss
    # Sums from the end, divided by the number of tokens in each.
    left = torch.arange(token_loss.shape[1], 0, -1, device=token_loss.device)
    return token_loss.flip(1).cumsum(1).flip(1) / left


def smooth_step(x: Float[Tensor, "..."], gamma: float = 1.0) -> Float[Tensor, "..."]:
    """Step smoothly, by a cubic, from 0 at -gamma / 2 to 1 at gamma / 2, flat outside.

    From DSelect-k (arXiv:2106.03760), equation 4.
    """
    t = x.clamp(-gamma / 2, gamma / 2) / gamma
    return 0.5 + t * (1.5 - 2 * t.square())


def dselect_k(
    bits: Float[Tensor, "*token bit"], num_paths: int, gamma: float = 1.0
) -> Probabilities:
    """Return the weights of a selector that names a path by its binary code.

    From DSelect-k (arXiv:2106.03760), section 3.2. Exact zeros are common. If the number of paths
    is no power of 2, the codes left over select the first paths again, which keeps the sum at 1
    (our choice).

    Args:
        bits: `ceil(log2(num_paths))` activations.
        num_paths: number of paths.
        gamma: width of the smooth step.
    """
    step = smooth_step(bits, gamma)
    found = torch.ones_like(step[..., :1])
    # Bit i of a code is worth 2^i, so each bit doubles the list of codes.
    for one in step.unsqueeze(-1).unbind(-2):
        found = torch.cat((found * (1 - one), found * one), dim=-1)
    extra = found[..., num_paths:]
    return torch.cat(
        (found[..., : extra.shape[-1]] + extra, found[..., extra.shape[-1] : num_paths]), dim=-1
    )
