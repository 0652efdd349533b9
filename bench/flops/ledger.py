"""The analytic ledger: what a model costs under a plan, in FLOPs.

*Active* FLOPs are the currency: 2mnk a product, attention over the n(n+1)/2 causal pairs of the
tokens that take part. *Executed* FLOPs are what the hardware is asked for: full-square attention,
padding, masked work; that is the figure that the counter must reproduce. Routers are priced by
running them once under the counter; they never state a cost of their own.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Real
from torch import Tensor

from bench.backbone.decoder import Decoder, Layer
from bench.backbone.sites import PathSet
from bench.routing.contract import LayerTrace

Counts = Real[Tensor, "batch _path"]
"""Tokens of each sequence on each path; the underscore, because sites differ in their paths."""


@dataclass(frozen=True)
class SiteCost:
    """Forward cost of one routed site.

    Attributes:
        layer: index of the layer.
        names: the paths.
        token: FLOPs a token through each path.
        pair: FLOPs a pair of tokens that attend to each other inside each path.
        router: FLOPs of the router, a token.
        merge: FLOPs of merging the experts, a token that runs the merged one: 2 x the parameters of
            all experts, a segment.
    """

    layer: int
    names: tuple[str, ...]
    token: tuple[float, ...]
    pair: tuple[float, ...]
    router: float
    merge: float = 0.0

    def by_path(self, counts: Counts) -> Float[Tensor, " path"]:
        """FLOPs of each path, summed over the batch, when each sequence sends `counts` tokens along
        each path; float64.
        """
        token, pair = (
            torch.tensor(self.token, dtype=torch.float64),
            torch.tensor(self.pair, dtype=torch.float64),
        )
        n = counts.double().cpu()
        return (n * (token + self.merge) + n * (n + 1) / 2 * pair).sum(0)

    def active(self, counts: Counts) -> float:
        """FLOPs of all paths together."""
        return float(self.by_path(counts).sum())

    def executed(self, counts: Counts, padded: bool) -> float:
        """The same as the hardware sees it.

        Square attention, each sequence padded to the longest if `padded`.
        """
        token, pair = (
            torch.tensor(self.token, dtype=torch.float64),
            torch.tensor(self.pair, dtype=torch.float64),
        )
        n = counts.double().cpu()
        if padded:
            n = n.max(dim=0, keepdim=True).values.expand_as(n)
        return float((n * (token + self.merge) + n**2 * pair).sum())

    def backward(self, reached: bool) -> "SiteCost":
        """Cost of the gradient of the activations alone, or of nothing but the router where no
        gradient reaches the site.

        A product costs as much again for each of its operands that needs a gradient: one of a
        product with a frozen weight, both of attention's. A router, which is trained, is charged
        twice its forward work.
        """
        token, pair = (
            tuple(factor * reached * cost for cost in costs)
            for factor, costs in ((1, self.token), (2, self.pair))
        )
        return replace(self, token=token, pair=pair, router=2 * self.router)

    def at(self, share: Sequence[float], seq_len: int) -> float:
        """FLOPs a token of the paths when every sequence sends these shares of its tokens along
        each path.
        """
        return self.active(torch.tensor([share], dtype=torch.float64) * seq_len) / seq_len


class Ledger:
    """Prices forward passes of one decoder at one sequence length, and adds up training.

    Args:
        decoder: the model, with its routers in place.
        seq_len: tokens a sequence.
        router_flops: layer -> FLOPs a token of its router.
        first: the layer at which the passes begin that are priced; above 0 for those that fork from
            another.
    """

    def __init__(
        self, decoder: Decoder, seq_len: int, router_flops: Mapping[int, float], first: int = 0
    ) -> None:
        self.seq_len = seq_len
        self.sites: list[SiteCost] = []
        config = decoder.config
        self._linear = {config.num_layers: 2.0 * config.d_model * config.vocab_size}
        self._pair: dict[int, float] = {}
        for layer in decoder.layers[first:]:
            assert isinstance(layer, Layer)
            self._add(layer, router_flops.get(layer.index, 0.0))
        self.spent: defaultdict[str, float] = defaultdict(float)

    def _add(self, layer: Layer, router: float) -> None:
        linear, pair = layer.attention.flops(), layer.attention.pair_flops()
        if isinstance(layer.ffn, PathSet):
            names = layer.ffn.names
            token = tuple(layer.ffn.flops(index) for index in range(len(names)))
            segments = (
                0 if layer.ffn.segment is None else math.ceil(self.seq_len / layer.ffn.segment)
            )
            self.sites.append(
                SiteCost(
                    layer.index,
                    names,
                    token,
                    (0.0,) * len(names),
                    router,
                    sum(token) * segments / self.seq_len,
                )
            )
        else:
            linear += layer.ffn.flops()
        if layer.block_router is None:
            self._linear[layer.index] = linear
            self._pair[layer.index] = pair
        else:
            self.sites.append(
                SiteCost(
                    layer.index, layer.block_router.paths.names, (0.0, linear), (0.0, pair), router
                )
            )

    @property
    def fixed(self) -> float:
        """Active FLOPs a token of everything that runs for every token, routers not included."""
        return sum(self._linear.values()) + sum(self._pair.values()) * (self.seq_len + 1) / 2

    @property
    def fixed_executed(self) -> float:
        """The same with full-square attention."""
        return sum(self._linear.values()) + sum(self._pair.values()) * self.seq_len

    @property
    def routers(self) -> float:
        """FLOPs a token of all routers."""
        return sum(site.router for site in self.sites)

    def active(self, counts: Sequence[Counts], tokens: int) -> float:
        """Active FLOPs of a forward pass over `tokens` tokens."""
        return (self.fixed + self.routers) * tokens + sum(
            s.active(c) for s, c in zip(self.sites, counts, strict=True)
        )

    def executed(self, counts: Sequence[Counts], tokens: int, padded: bool) -> float:
        """Executed FLOPs of a forward pass over `tokens` tokens."""
        paths = sum(
            s.executed(c, padded and any(s.pair)) for s, c in zip(self.sites, counts, strict=True)
        )
        return (self.fixed_executed + self.routers) * tokens + paths

    def backward(self, gradient_after: int) -> "Ledger":
        """Prices of the backward pass through a model of which only the routers are trained.

        Args:
            gradient_after: the first layer whose update carries a gradient. Backbone and paths up
                to there cost nothing.
        """
        prices = copy(self)
        prices._linear = {
            layer: cost for layer, cost in self._linear.items() if layer > gradient_after
        }
        prices._pair = {
            layer: 2 * cost for layer, cost in self._pair.items() if layer > gradient_after
        }
        prices.sites = [site.backward(site.layer > gradient_after) for site in self.sites]
        prices.spent = defaultdict(float)
        return prices

    def charge_step(
        self,
        counts: Sequence[Counts],
        tokens: int,
        auxiliary: float = 0.0,
        gradient_after: int | None = None,
    ) -> float:
        """Charge one training step, forward and backward, and return its cost.

        Args:
            counts: tokens of each sequence on each path, a routed site.
            tokens: tokens of the step.
            auxiliary: forward FLOPs of the auxiliary losses.
            gradient_after: where backbone and paths are frozen, the first layer whose update
                carries a gradient.
        """
        forward = {**self._parts(counts, tokens), "auxiliary": auxiliary}
        backward = {part: 2 * flops for part, flops in forward.items()}
        if gradient_after is not None:
            backward |= self.backward(gradient_after)._parts(counts, tokens)
        for part, flops in forward.items():
            self.spent[f"{part}/forward"] += flops
            self.spent[f"{part}/backward"] += backward[part]
        return sum(forward.values()) + sum(backward.values())

    def _parts(self, counts: Sequence[Counts], tokens: int) -> dict[str, float]:
        paths = sum(s.active(c) for s, c in zip(self.sites, counts, strict=True))
        return {"backbone": self.fixed * tokens, "router": self.routers * tokens, "paths": paths}

    def charge(self, component: str, phase: str, flops: float) -> None:
        """Charge anything else to training."""
        self.spent[f"{component}/{phase}"] += flops

    @property
    def total(self) -> float:
        """All that was charged to training so far."""
        return sum(self.spent.values())


def first_gradient(traces: Sequence[LayerTrace], num_layers: int) -> int:
    """The first layer whose update carries a gradient in a frozen model.

    The number of layers where none does.
    """
    return min((trace.layer for trace in traces if trace.update.requires_grad), default=num_layers)
