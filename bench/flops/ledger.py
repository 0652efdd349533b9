"""Keep the ledger: the cost of a model under a plan, in FLOPs, by formula.

*Active* FLOPs are the currency: 2mnk per product, attention over the n(n+1)/2 causal pairs of the
tokens that take part. *Executed* FLOPs include the extra work of the hardware: full-square
attention, padding, masked work. The counter must reproduce them. A router is priced by running it
once under the counter; it never states its own cost.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int, Real
from torch import Tensor

from bench.backbone.decoder import Decoder, Layer
from bench.backbone.sites import PathSet
from bench.routing.contract import LayerTrace
from bench.routing.paths import Site

SiteKey = tuple[int, Site]
"""Layer and site of a router."""
Counts = Real[Tensor, "batch _path"]
"""Tokens of each sequence on each path. The underscore lets sites differ in their paths."""


@dataclass(frozen=True)
class SiteCost:
    """Forward cost of one routed site.

    Attributes:
        layer: index of the layer.
        names: the paths.
        token: FLOPs per token through each path.
        pair: FLOPs per pair of tokens that attend to each other inside each path.
        router: FLOPs of the router per token that it decides about.
        merge: FLOPs of merging the experts, per token that runs the merged expert. A merge costs
            2 x the parameters of all experts per segment.
        inside: whether the site lies inside a routed block, whose site follows it. Its router
            decides about the tokens in the block.
    """

    layer: int
    names: tuple[str, ...]
    token: tuple[float, ...]
    pair: tuple[float, ...]
    router: float
    merge: float = 0.0
    inside: bool = False

    def by_path(self, counts: Counts) -> Float[Tensor, " path"]:
        """Return the FLOPs of each path, summed over the batch, in float64.

        Args:
            counts: tokens of each sequence on each path.
        """
        token, pair = (
            torch.tensor(self.token, dtype=torch.float64),
            torch.tensor(self.pair, dtype=torch.float64),
        )
        # Each of the n tokens on a path attends to itself and to those before it: n(n+1)/2 pairs.
        n = counts.double().cpu()
        return (n * (token + self.merge) + n * (n + 1) / 2 * pair).sum(0)

    def active(self, counts: Counts) -> float:
        """Return the active FLOPs of all paths together."""
        return float(self.by_path(counts).sum())

    def executed(self, counts: Counts, padded: bool) -> float:
        """Return the executed FLOPs of all paths together.

        Attention is square. If `padded`, each sequence is padded to the longest.
        """
        token, pair = (
            torch.tensor(self.token, dtype=torch.float64),
            torch.tensor(self.pair, dtype=torch.float64),
        )
        n = counts.double().cpu()
        if padded:
            # A batched block pads all sequences to the longest one.
            n = n.max(dim=0, keepdim=True).values.expand_as(n)
        return float((n * (token + self.merge) + n**2 * pair).sum())

    def backward(self, reached: bool) -> "SiteCost":
        """Return the cost of the backward pass of frozen paths and a trained router.

        If no gradient reaches the site, only the router costs anything. A product costs as much
        again for each operand that needs a gradient: one operand of a product with a frozen weight,
        both operands in attention. A trained router costs twice its forward work.
        """
        token, pair = (
            tuple(factor * reached * cost for cost in costs)
            for factor, costs in ((1, self.token), (2, self.pair))
        )
        return replace(self, token=token, pair=pair, router=2 * self.router)

    def at(self, share: Sequence[float], seq_len: int) -> float:
        """Return the FLOPs per token if sequences send these shares of tokens to the paths."""
        return self.active(torch.tensor([share], dtype=torch.float64) * seq_len) / seq_len


class Ledger:
    """Prices forward passes of one decoder at one sequence length, and adds up training.

    Args:
        decoder: the model with its routers.
        seq_len: tokens per sequence.
        router_flops: layer and site -> FLOPs of the router there per token.
        first: first layer of the priced passes; above 0 for passes that fork from another pass.
    """

    def __init__(
        self, decoder: Decoder, seq_len: int, router_flops: Mapping[SiteKey, float], first: int = 0
    ) -> None:
        self.seq_len = seq_len
        self.sites: list[SiteCost] = []
        config = decoder.config
        # Layer -> FLOPs per token of its unrouted work. The head counts as the layer after them.
        self._linear = {config.num_layers: 2.0 * config.d_model * config.vocab_size}
        self._pair: dict[int, float] = {}
        for layer in decoder.layers[first:]:
            assert isinstance(layer, Layer)
            self._add(layer, router_flops)
        self.spent: defaultdict[str, float] = defaultdict(float)

    def _add(self, layer: Layer, router_flops: Mapping[SiteKey, float]) -> None:
        # A layer has a routed FFN, a routed block, both, or no routed site.
        linear, pair = layer.attention.flops(), layer.attention.pair_flops()
        if isinstance(layer.ffn, PathSet):
            names = layer.ffn.names
            token = tuple(layer.ffn.flops(index) for index in range(len(names)))
            # Merged experts are made once per segment, also for a last segment that is shorter.
            segments = (
                0 if layer.ffn.segment is None else math.ceil(self.seq_len / layer.ffn.segment)
            )
            self.sites.append(
                SiteCost(
                    layer.index,
                    names,
                    token,
                    (0.0,) * len(names),
                    router_flops.get((layer.index, Site.FFN), 0.0),
                    sum(token) * segments / self.seq_len,
                    layer.block_router is not None,
                )
            )
        else:
            # An FFN without a router runs for every token.
            linear += layer.ffn.flops()
        if layer.block_router is None:
            self._linear[layer.index] = linear
            self._pair[layer.index] = pair
        else:
            names = layer.block_router.paths.names
            router = router_flops.get((layer.index, Site.BLOCK), 0.0)
            self.sites.append(SiteCost(layer.index, names, (0.0, linear), (0.0, pair), router))

    @property
    def fixed(self) -> float:
        """Active FLOPs per token of everything that runs for every token, without the routers."""
        return sum(self._linear.values()) + sum(self._pair.values()) * (self.seq_len + 1) / 2

    @property
    def fixed_executed(self) -> float:
        """Executed FLOPs per token of the same work, with full-square attention."""
        return sum(self._linear.values()) + sum(self._pair.values()) * self.seq_len

    @property
    def routers(self) -> float:
        """FLOPs per token of the routers that decide about every token."""
        return sum(site.router for site in self.sites if not site.inside)

    def inside(self, counts: Sequence[Counts], padded: bool = False) -> float:
        """Return the FLOPs of the routers inside routed blocks.

        Args:
            counts: tokens of each sequence on each path, per site.
            padded: whether each sequence in a block is padded to the longest.
        """
        total = 0.0
        for site, block in zip(self.sites, counts[1:], strict=False):
            if site.inside:
                taken = block[:, 1].double()
                total += site.router * float(taken.max() * len(taken) if padded else taken.sum())
        return total

    def at(self, shares: Sequence[Sequence[float]]) -> float:
        """Return the active FLOPs per token of the whole model.

        Args:
            shares: share of all tokens on each path, per site.
        """
        sites = [
            site.at(share, self.seq_len) for site, share in zip(self.sites, shares, strict=True)
        ]
        inside = self.inside([torch.tensor([share], dtype=torch.float64) for share in shares])
        return self.fixed + self.routers + sum(sites) + inside

    def active(self, counts: Sequence[Counts], tokens: int) -> float:
        """Return the active FLOPs of a forward pass over `tokens` tokens."""
        paths = sum(s.active(c) for s, c in zip(self.sites, counts, strict=True))
        return (self.fixed + self.routers) * tokens + paths + self.inside(counts)

    def executed(self, counts: Sequence[Counts], tokens: int, padded: bool) -> float:
        """Return the executed FLOPs of a forward pass over `tokens` tokens."""
        # Only blocks, whose tokens attend to each other, are padded to the longest sequence.
        paths = sum(
            s.executed(c, padded and any(s.pair)) for s, c in zip(self.sites, counts, strict=True)
        )
        inside = self.inside(counts, padded)
        return (self.fixed_executed + self.routers) * tokens + paths + inside

    def step(
        self,
        counts: Sequence[Int[Tensor, " _path"]],
        pairs: Mapping[int, int],
        asked: Sequence[int],
        tokens: int,
    ) -> float:
        """Return the active FLOPs of one step of decoding.

        Args:
            counts: for each routed site, new tokens on each path.
            pairs: layer -> pairs of a new token and a token that it attends to.
            asked: for each routed site, tokens that its router was asked about.
            tokens: number of new tokens.
        """
        total = sum(self._linear.values()) * tokens
        total += sum(self._pair[layer] * pairs.get(layer, 0) for layer in self._pair)
        for site, count, seen in zip(self.sites, counts, asked, strict=True):
            # Of the two paths of a block, one attends.
            total += site.router * seen + sum(site.pair) * pairs.get(site.layer, 0)
            # A step merges the experts for each new token, where a pass does for each segment.
            merge = sum(site.token) if site.merge else 0.0
            total += sum(
                (cost + merge) * number
                for cost, number in zip(site.token, count.tolist(), strict=True)
            )
        return total

    def backward(self, gradient_after: int) -> "Ledger":
        """Return the prices of the backward pass of a model in which only the routers are trained.

        Args:
            gradient_after: the first layer whose update carries a gradient. Backbone and paths up
                to this layer cost nothing.
        """
        prices = copy(self)
        prices._linear = {
            layer: cost for layer, cost in self._linear.items() if layer > gradient_after
        }
        # Both operands of attention are activations, so both need a gradient.
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
            counts: for each routed site, tokens of each sequence on each path.
            tokens: tokens of the step.
            auxiliary: forward FLOPs of the auxiliary losses.
            gradient_after: the first layer whose update carries a gradient, if backbone and paths
                are frozen.
        """
        forward = {**self._parts(counts, tokens), "auxiliary": auxiliary}
        # By default everything is trained: two products backward for one forward.
        backward = {part: 2 * flops for part, flops in forward.items()}
        if gradient_after is not None:
            backward |= self.backward(gradient_after)._parts(counts, tokens)
        for part, flops in forward.items():
            self.spent[f"{part}/forward"] += flops
            self.spent[f"{part}/backward"] += backward[part]
        return sum(forward.values()) + sum(backward.values())

    def _parts(self, counts: Sequence[Counts], tokens: int) -> dict[str, float]:
        paths = sum(s.active(c) for s, c in zip(self.sites, counts, strict=True))
        routers = self.routers * tokens + self.inside(counts)
        return {"backbone": self.fixed * tokens, "router": routers, "paths": paths}

    def charge(self, component: str, phase: str, flops: float) -> None:
        """Charge other work to training, such as oracle labels."""
        self.spent[f"{component}/{phase}"] += flops

    @property
    def total(self) -> float:
        """FLOPs charged to training so far."""
        return sum(self.spent.values())


def first_gradient(traces: Sequence[LayerTrace], num_layers: int) -> int:
    """Return the first layer whose update carries a gradient, else the number of layers."""
    return min((trace.layer for trace in traces if trace.update.requires_grad), default=num_layers)
