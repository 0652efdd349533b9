"""What a router may ask the harness to find out for it in training: the utility of upgrades, and right paths."""

from dataclasses import dataclass
from typing import Literal

Made = Literal["utility", "labels"]
"""Fields of a trace that it takes work to fill."""
Policy = Literal["off_policy", "on_policy"]


@dataclass(frozen=True)
class OracleRequest:
    """How utility labels of a training batch are made, for routers whose `needs` has "utility" (arXiv:2604.17228).

    The utility of the upgrade at a token is the loss with the base path there less the loss with the upgrade.

    Attributes:
        policy: "off_policy": the layers after the fork take their upgrade everywhere; "on_policy": they are routed by the router itself.
        flip_fraction: share of tokens whose path is flipped in a fork; 1 flips all at once, which confounds tokens through later attention.
        layers: "one" routed layer a step, drawn evenly, or "all" of them, a fork each.

    Raises:
        ValueError: a value that is not allowed.
    """

    policy: Policy = "off_policy"
    flip_fraction: float = 0.25
    layers: Literal["one", "all"] = "one"

    def __post_init__(self) -> None:
        if self.policy not in ("off_policy", "on_policy"):
            raise ValueError(f"policy is {self.policy!r}; allowed are 'off_policy', 'on_policy'.")
        if not 0 < self.flip_fraction <= 1:
            raise ValueError(f"flip_fraction is {self.flip_fraction}; it must be above 0 and at most 1.")
        if self.layers not in ("one", "all"):
            raise ValueError(f"layers is {self.layers!r}; allowed are 'one', 'all'.")
