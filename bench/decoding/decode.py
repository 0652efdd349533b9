"""Decode token by token: the prompt in one parallel pass, then one column of tokens at a time.

A token that a routed block leaves out has no key and no value in that layer. Steps compute the same
as the parallel pass over the whole text, with the causal choice at the present knobs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bench.backbone.decoder import Decoder, Layer, weighed
from bench.backbone.dispatch import PathUpdates, dispatch_paths
from bench.backbone.layers import KeysValues, rms_norm
from bench.backbone.passes import Pass, ask, make_pass
from bench.backbone.sites import PathSet
from bench.decoding.cache import Rows, attend, cache_of
from bench.decoding.prefix import Prefix
from bench.flops.ledger import Ledger
from bench.routing.contract import LayerTrace, Router, RouterInput, RoutingPlan


@dataclass
class Work:
    """The work of one step, for its price.

    Attributes:
        sequences: number of new tokens.
        pairs: layer -> pairs of a new token and a token that it attends to.
        asked: router -> tokens of its inputs.
        plans: router -> the sequences that it decided about, and their plan.
    """

    sequences: int
    pairs: dict[int, int] = field(default_factory=dict[int, int])
    asked: dict[Router, int] = field(default_factory=dict[Router, int])
    plans: dict[Router, tuple[Rows, RoutingPlan]] = field(
        default_factory=dict[Router, tuple[Rows, RoutingPlan]]
    )


class Decoding:
    """A batch of sequences in decoding.

    Args:
        decoder: the model, with its knobs set.
        tokens: prompts of equal length, at least one token each.
        tags: domain of each token of the prompts, for routers that need it.

    Attributes:
        tokens: the tokens so far.
        logits: logits of the prompts.
        traces: traces of the prompts.
        caches: keys and values of each layer.
        prefixes: inputs of the routers that read more than the new token; empty if none does.
        work: work of the last step.
    """

    @torch.no_grad()
    def __init__(
        self,
        decoder: Decoder,
        tokens: Int[Tensor, "batch seq"],
        tags: Int[Tensor, "batch seq"] | None = None,
    ) -> None:
        self.decoder, self.tokens = decoder, tokens
        self.tags = torch.zeros_like(tokens) if tags is None else tags
        self.layers = list(cast("Sequence[Layer]", decoder.layers))
        kept: list[KeysValues] = []
        run = make_pass(tokens, self.tags, kept=kept)
        self.logits: Float[Tensor, "batch seq vocab"] = decoder(run)
        self.traces = run.traces
        by_router = dict(zip(decoder.routers, run.traces, strict=True))
        self.caches = [
            cache_of(one, self._taken(layer, by_router))
            for layer, one in zip(self.layers, kept, strict=True)
        ]
        # A router may read the traces of the layers before, so all are asked in the same way.
        alone = all(router.pointwise for router in decoder.routers)
        self.prefixes = {} if alone else {key: Prefix(one) for key, one in by_router.items()}
        self.work = Work(len(tokens))
        self._previous: LayerTrace | None = None

    def _taken(self, layer: Layer, traces: dict[Router, LayerTrace]) -> Int[Tensor, " batch"]:
        """Return the number of tokens of each prompt that a layer takes."""
        if layer.block_router is None:
            return torch.full((len(self.tokens),), self.tokens.shape[1])
        return traces[layer.block_router].plan.mask[..., 1].sum(1)

    def price(self, ledger: Ledger) -> float:
        """Return the active FLOPs of the last step, at the prices of a ledger.

        A router that reads the prefix pays for all of it.
        """
        counts: list[Tensor] = []
        for router in self.decoder.routers:
            # A router inside a block is not asked where no token takes the block.
            found = self.work.plans.get(router)
            empty = torch.zeros(len(router.paths.names), dtype=torch.long)
            counts.append(empty if found is None else found[1].mask.sum((0, 1)))
        asked = [self.work.asked.get(router, 0) for router in self.decoder.routers]
        return ledger.step(counts, self.work.pairs, asked, self.work.sequences)

    @property
    def size(self) -> int:
        """Return the bytes of keys and values, and of the inputs that routers read again."""
        return sum(one.size for one in (*self.caches, *self.prefixes.values()))

    @torch.no_grad()
    def step(
        self, tokens: Int[Tensor, " batch"], tags: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch vocab"]:
        """Add one token to each sequence, and return the logits of the token after it.

        Args:
            tokens: the new tokens.
            tags: their domains; None for the domains of the tokens before.
        """
        column = tokens.unsqueeze(1)
        tags = self.tags[:, -1] if tags is None else tags
        self.tokens = torch.cat((self.tokens, column), dim=1)
        self.tags = torch.cat((self.tags, tags.unsqueeze(1)), dim=1)
        rows = torch.arange(len(tokens))
        # The pass holds the new token alone; caches hold the tokens before it.
        run = Pass(
            column,
            torch.full_like(column, self.tokens.shape[1] - 1),
            self.tags[:, -1:],
            truth=self._truth(),
            decide=partial(self._decide, rows),
        )
        # Counters and the plan of the layer before begin anew with each token.
        self.work, self._previous = Work(len(tokens)), None
        x = rms_norm(self.decoder.embedding(column))
        for layer in self.layers:
            x = self._layer(layer, x, run, rows)
        return self.decoder.head(rms_norm(x)).squeeze(1)

    def _truth(self) -> Int[Tensor, "batch 1"] | None:
        """Return the right paths of the new tokens, if a router needs them."""
        find = self.decoder.truth
        if find is None or not any("truth" in router.needs for router in self.decoder.routers):
            return None
        # A right path may depend on all tokens before.
        found = torch.from_numpy(find(self.tokens.cpu().numpy())[:, -1:])
        return found.to(self.tokens.device)

    def _decide(self, rows: Rows, router: Router, inputs: RouterInput) -> RoutingPlan:
        """Ask a router about the new tokens of some sequences."""
        prefix = self.prefixes.get(router)
        if prefix is None:
            plan, self.work.asked[router] = ask(router, inputs), len(rows)
        else:
            plan = prefix.plan(router, inputs, rows, None if prefix.inside else self._previous)
            self.work.asked[router] = prefix.columns["tokens"].of(rows).numel()
        self.work.plans[router] = rows, plan
        return plan

    def _layer(self, layer: Layer, x: Tensor, run: Pass, rows: Rows) -> Tensor:
        """Run a layer on the new tokens `[batch, 1, d_model]`, as `Layer.forward` does."""
        if layer.memory is not None:
            # The memory reads the token before, too.
            x = x + layer.memory(self.tokens[:, -2:])[:, -1:]
        if layer.block_router is None:
            return self._block(layer, x, run, rows)
        inputs, plan = run.plan(layer.block_router, rms_norm(x), x)
        taking = plan.mask[:, 0, 1].cpu().nonzero().squeeze(1)
        update = torch.zeros_like(x)
        path_updates: PathUpdates = {}
        if len(taking):
            index = taking.to(x.device)
            part = self._part(run, taking, index, plan)
            entering = x[index]
            delta = self._block(layer, entering, part, taking) - entering
            if layer.shows_attention:
                run.attention = run.seen_attention().index_copy(0, index, part.seen_attention())
            path_updates = {"block": (index, delta.flatten(0, 1))}
            if plan.weight is not None and plan.weighs == "update":
                delta = delta * plan.weight[index, :, 1:].to(delta.dtype)
            update = update.index_copy(0, index, delta.to(x.dtype))
        paths = layer.block_router.paths
        trace = LayerTrace(layer.index, paths, inputs, plan, update, path_updates)
        self._follow(layer.block_router, trace, run)
        return x + update

    def _part(self, run: Pass, taking: Rows, index: Tensor, plan: RoutingPlan) -> Pass:
        """Return the pass of the new tokens in a routed block. `index` is `taking` on the device.

        It has no padding, so all its tokens are valid.
        """
        scales = plan.weight is not None and plan.weighs == "ffn"
        return replace(
            run,
            tokens=run.tokens[index],
            positions=run.positions[index],
            tags=None if run.tags is None else run.tags[index],
            truth=None if run.truth is None else run.truth[index],
            attention=None if run.attention is None else run.attention[index],
            ffn_weight=plan.weight[index, :, 1] if scales and plan.weight is not None else None,
            valid=torch.ones_like(run.tokens[index], dtype=torch.bool),
            in_block=True,
            decide=partial(self._decide, taking),
        )

    def _block(self, layer: Layer, x: Tensor, run: Pass, rows: Rows) -> Tensor:
        """Run attention over the cache, and the FFN."""
        cache, shown = self.caches[layer.index], layer.shows_attention
        attended, seen = attend(layer.attention, rms_norm(x), run.positions, cache, rows, shown)
        run.attention = seen if shown else run.attention
        self.work.pairs[layer.index] = int(cache.lengths[rows].sum())
        x = x + attended
        hidden, router = rms_norm(x), layer.ffn_router
        if router is None:
            return x + weighed(layer.ffn(hidden), run)
        inputs, plan = run.plan(router, hidden, x)
        assert isinstance(layer.ffn, PathSet)
        update, path_updates = dispatch_paths(hidden, plan, layer.ffn)
        if not run.in_block:
            trace = LayerTrace(layer.index, router.paths, inputs, plan, update, path_updates)
            self._follow(router, trace, run)
        return x + weighed(update, run)

    def _follow(self, router: Router, trace: LayerTrace, run: Pass) -> None:
        """Keep the trace of a site for the routers of later layers."""
        run.traces.append(trace)
        if router in self.prefixes:
            self.prefixes[router].follow(trace.update, trace.path_updates)
            self._previous = self.prefixes[router].trace
