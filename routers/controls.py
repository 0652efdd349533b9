"""Define the brackets and the controls that learned routers are compared with."""

import math
from typing import Literal

import torch

from bench.routing import (
    BLOCK_GATE,
    FFN_GATE,
    Paths,
    Router,
    RouterInput,
    RouterSpec,
    RoutingPlan,
    Site,
    experts,
    gate_plan,
    hash_noise,
    register,
    upgrade,
)


class _Constant(Router):
    """Send every token through the same path."""

    pointwise = True
    paths = FFN_GATE
    full: bool

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        chosen = torch.full(inputs.tokens.shape, self.full, device=inputs.tokens.device)
        return gate_plan(chosen, inputs.tokens.shape[1] if self.full else 0)


@register("dense", family="bracket")
class Dense(_Constant):
    """The upper bracket: every token takes the full path, at any budget."""

    full = True


@register("cheap", family="bracket")
class Cheap(_Constant):
    """The lower bracket: every token takes the cheap path."""

    full = False


@register("dense_matched", family="control")
class DenseMatched(Router):
    """No routing: one FFN for every token, so narrow that the model costs exactly the budget.

    Most papers leave this control out. Its hidden units are the first of the dense layer's own
    draw.
    """

    pointwise = True
    # An expert's width is solved from the budget, so a bank of one expert does it.
    paths = experts(1)

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        """Send every token to the one expert."""
        batch, seq = inputs.tokens.shape
        mask = torch.ones(batch, seq, 1, dtype=torch.bool, device=inputs.tokens.device)
        return RoutingPlan(mask, counts=(seq,))


@register("dense_memory", family="control")
class DenseMemory(DenseMatched):
    """No routing: the FFN of `dense_matched`, and a table of token pairs in each routed layer.

    Hashed pairs of (previous, current) token add a vector of the table to the stream. This is the
    control of `hash`, whose gain may come from more parameters per token id. The table has as many
    parameters as the bank of `hash` beyond one expert, so both models have equally many.

    Args:
        num_experts: size of the bank to match.
    """

    def __init__(self, num_experts: int = 8) -> None:
        super().__init__()
        if num_experts < 2:
            raise ValueError(f"num_experts is {num_experts}; at least 2 leave parameters over.")
        self.memory = num_experts - 1.0


@register("random", family="control")
class Random(Router):
    """Random routing over the same paths as the router to compare with.

    Training draws fresh noise for every batch. Evaluation hashes (seed, layer, position, token), so
    a choice is the same in any batch and in decoding.

    Args:
        over: the paths: "ffn" (cheap or full), "block" (skip or block), "experts".
        num_experts: size of the bank, for "experts".
        active_experts: mean number of experts per token, for "experts"; 1.2 means a second expert
            for a fifth of the tokens. Each expert has the weight 1 / number of the token's experts.
        num_shared: number of experts that every token also takes, with weight 1, for "experts".
        skip: "ffn" is skip or full; with "experts" there is a path without cost for tokens without
            an expert.
        inside: choice of the tokens in a block, "ffn" or "experts"; None for a dense FFN.
        layers: routed layers to use; None for the default: every layer, and for "block" every
            other.
        capacity: share of tokens to upgrade, for "ffn" and "block"; None to solve it from the
            budget.
    """

    pointwise = True

    def __init__(
        self,
        over: Literal["ffn", "block", "experts"] = "ffn",
        num_experts: int = 8,
        active_experts: float = 2.0,
        num_shared: int = 0,
        skip: bool = False,
        inside: Literal["ffn", "experts"] | None = None,
        layers: Literal["every", "other"] | None = None,
        capacity: float | None = None,
    ) -> None:
        super().__init__()
        if over not in ("ffn", "block", "experts"):
            raise ValueError(f"over is {over!r}; allowed are 'ffn', 'block', 'experts'.")
        if inside not in (None, "ffn", "experts") or (inside and over != "block"):
            raise ValueError(
                f"inside is {inside!r} and over {over!r}; in a block 'ffn' and 'experts' are "
                "allowed."
            )
        if not 0 < active_experts <= num_experts:
            raise ValueError(
                f"active_experts is {active_experts}; allowed is above 0 and at most num_experts, "
                f"{num_experts}."
            )
        if num_shared < 0:
            raise ValueError(f"num_shared is {num_shared}; it must be at least 0.")
        self.over, self.num_experts, self.active_experts = over, num_experts, active_experts
        self.num_shared, self.mean_experts = num_shared, float(active_experts + num_shared)
        # With `skip`, a gate skips in place of the cheap path, and a bank gets a path `skip`.
        bank, beside = experts(num_experts, shared=num_shared), ("skip",) * skip
        gate = Paths(Site.FFN, ("skip", "full"), base="skip") if skip else FFN_GATE
        bank = Paths(Site.FFN, (*bank.names, *beside), always=bank.always)
        self.paths = {"ffn": gate, "block": BLOCK_GATE, "experts": bank}[over]
        # Below one expert per token, some tokens take none unless another path is there.
        self.allows_none = over == "experts" and active_experts < 1 and not (skip or num_shared)
        self.within: Literal["ffn", "experts"] | None = inside
        self.skip, self.capacity = skip, capacity
        self.layers = layers or ("other" if over == "block" else "every")

    def inside(self) -> Router | None:
        """Make a random router for the FFN inside a block."""
        if self.within is None:
            return None
        return Random(
            self.within, self.num_experts, self.active_experts, self.num_shared, self.skip
        )

    def build(self, spec: RouterSpec) -> None:
        """Enable the knob if the share of upgraded tokens is free."""
        super().build(spec)
        if self.over != "experts":
            self.enable_knob()

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        """Draw a score for every token, or for every token and expert, and take the highest."""
        # Evaluation must be causal and the same in any batch, so it hashes.
        if self.over == "experts":
            return self._experts(inputs)
        if inputs.selection == "topk":
            scores = torch.rand(
                inputs.tokens.shape, generator=inputs.generator, device=inputs.tokens.device
            )
        else:
            scores = hash_noise(self.spec, inputs)
        return gate_plan(*upgrade(scores, inputs, self.spec, self.knob))

    def _experts(self, inputs: RouterInput) -> RoutingPlan:
        seq_shape, device = inputs.tokens.shape, inputs.tokens.device
        if inputs.selection == "topk":
            noise = torch.rand(
                *seq_shape, self.num_experts + 1, generator=inputs.generator, device=device
            )
        else:
            noise = hash_noise(self.spec, inputs, torch.arange(self.num_experts + 1, device=device))
        # The last column of noise decides whether a token takes one expert more.
        most = math.ceil(self.active_experts)
        taken = torch.ones(*seq_shape, most, dtype=torch.bool, device=device)
        if most > self.active_experts:
            taken[..., -1] = noise[..., -1] < self.active_experts - (most - 1)
        chosen = noise[..., :-1].topk(most).indices
        mask = torch.zeros(*seq_shape, self.num_experts, dtype=torch.bool, device=device).scatter(
            2, chosen, taken
        )
        number = mask.sum(-1, keepdim=True)
        weight = mask / (number if self.active_experts >= 1 else number.clamp(min=1))
        if "skip" in self.paths.names:
            mask = torch.cat((mask, number == 0), dim=-1)
            weight = torch.cat((weight, (number == 0).to(weight)), dim=-1)
        if self.num_shared:
            shape = (*seq_shape, self.num_shared)
            mask = torch.cat((mask.new_ones(shape), mask), dim=-1)
            weight = torch.cat((weight.new_ones(shape), weight), dim=-1)
        return RoutingPlan(mask, weight)
