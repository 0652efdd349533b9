"""Build the shared decoder, with a router at the FFN or at the block of any layer."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.backbone.dispatch import (
    PathUpdates,
    chosen_pairs,
    dispatch_paths,
    gather_chosen,
    reference_paths,
    scatter_chosen,
)
from bench.backbone.layers import Attention, rms_norm
from bench.backbone.memory import PairMemory
from bench.backbone.passes import Pass
from bench.backbone.paths import ExpertBank
from bench.backbone.sites import PathSet, is_block
from bench.rng import normal
from bench.routing.contract import LayerTrace, Router


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of the decoder. `bench.backbone.presets` has the named ones."""

    vocab_size: int
    d_model: int
    num_layers: int
    num_heads: int
    ffn_width: int
    cheap_rank: int
    max_seq_len: int
    qk_gain: bool = False


class Layer(nn.Module):
    """Attention and FFN with pre-norm residuals, and a router at the block, at the FFN, or both."""

    def __init__(
        self, config: DecoderConfig, index: int, routers: Sequence[Router], expert_width: int
    ) -> None:
        super().__init__()
        self.index = index
        self.shows_attention = False
        self.attention = Attention(
            config.d_model, config.num_heads, config.max_seq_len, config.qk_gain
        )
        self.block_router = next((router for router in routers if is_block(router)), None)
        self.ffn_router = next((router for router in routers if not is_block(router)), None)
        if self.ffn_router is None:
            self.ffn = ExpertBank(config.d_model, config.ffn_width)
        else:
            self.ffn = PathSet(
                self.ffn_router.paths,
                config.d_model,
                config.ffn_width,
                config.cheap_rank,
                expert_width,
            )
        # An expert of the bank, or the full FFN, has 3 x d_model parameters per hidden unit.
        units = 3 * (expert_width or config.ffn_width)
        rows = round(max((router.memory for router in routers), default=0.0) * units)
        self.memory = PairMemory(rows, config.d_model, index) if rows else None

    def forward(
        self, x: Float[Tensor, "batch seq d_model"], run: Pass
    ) -> Float[Tensor, "batch seq d_model"]:
        """Run the layer, routed or not."""
        if self.memory is not None:
            x = x + self.memory(run.tokens)
        if self.block_router is None:
            return self._block(x, run)
        inputs, plan = run.plan(self.block_router, rms_norm(x), x)
        counts, chosen = plan.mask.sum(1), plan.mask[..., 1]
        weight = None if plan.weight is None else plan.weight[..., 1]
        ffn_weight = None
        if plan.weighs == "ffn":
            weight, ffn_weight = None, weight
        if run.reference:
            # Run the block on all tokens, hide those not chosen, and mask the update.
            part = replace(run, valid=chosen, in_block=True, ffn_weight=ffn_weight)
            delta = self._block(x, part, chosen_pairs(chosen)) - x
            if self.shows_attention:
                kept = chosen.unsqueeze(-1)
                run.attention = torch.where(kept, part.seen_attention(), run.seen_attention())
            update = delta * (chosen if weight is None else chosen * weight).unsqueeze(-1)
            path_updates: PathUpdates = {"block": (None, delta.flatten(0, 1))}
        else:
            # Gather the chosen tokens into shorter sequences, and scatter their updates back.
            index, valid = gather_chosen(chosen, None if plan.counts is None else plan.counts[1])
            kept = x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
            part = run.take(index, valid)
            part.ffn_weight = None if ffn_weight is None else ffn_weight.gather(1, index)
            delta = self._block(kept, part) - kept
            if self.shows_attention:
                run.adopt_attention(part, index)
            update = scatter_chosen(delta, index, weight, valid, x)
            rows = torch.arange(len(x), device=x.device).unsqueeze(1) * x.shape[1]
            path_updates = {"block": ((rows + index).flatten(), delta.flatten(0, 1))}
        run.traces.append(
            LayerTrace(self.index, self.block_router.paths, inputs, plan, update, path_updates)
        )
        run.counts.append(counts)
        return x + update

    def _block(self, x: Tensor, run: Pass, pairs: Tensor | None = None) -> Tensor:
        if self.shows_attention:
            attended, run.attention = self.attention.with_weights(
                rms_norm(x), run.positions, pairs, run.valid, run.kept
            )
        else:
            attended = self.attention(rms_norm(x), run.positions, pairs, run.kept)
        x = x + attended
        hidden = rms_norm(x)
        if self.ffn_router is None:
            return x + weighed(self.ffn(hidden), run)
        inputs, plan = run.plan(self.ffn_router, hidden, x)
        # Counts are noted before the paths run: nothing that happens later changes the charge.
        counts = plan.mask.sum(1)
        execute = reference_paths if run.reference else dispatch_paths
        update, path_updates = execute(hidden, plan, self.ffn)  # type: ignore[arg-type]
        run.traces.append(
            LayerTrace(self.index, self.ffn_router.paths, inputs, plan, update, path_updates)
        )
        run.counts.append(counts)
        return x + weighed(update, run)


def weighed(
    update: Float[Tensor, "batch seq d_model"], run: Pass
) -> Float[Tensor, "batch seq d_model"]:
    """Multiply the output of an FFN by the weight of its block, if that scales the FFN alone."""
    if run.ffn_weight is None:
        return update
    return update * run.ffn_weight.unsqueeze(-1).to(update.dtype)


class Decoder(nn.Module):
    """Decoder-only language model with untied embeddings.

    Args:
        config: sizes of the decoder.
        routers: layer index -> its built routers, at most one per site.
        expert_width: hidden width of each expert, if a router's paths are experts.

    Attributes:
        truth: returns right paths from token ids, both `[batch, seq]`, or None if they are unknown.
            Only routers that need them get them.
    """

    def __init__(
        self,
        config: DecoderConfig,
        routers: Mapping[int, Sequence[Router]] | None = None,
        expert_width: int = 0,
    ) -> None:
        super().__init__()
        self.config, self.expert_width = config, expert_width
        self.truth: Callable[[NDArray[np.integer]], NDArray[np.int64]] | None = None
        routers = routers or {}
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        layers = [
            Layer(config, index, routers.get(index, ()), expert_width)
            for index in range(config.num_layers)
        ]
        # A layer shows its attention if its FFN's router or the next block's router reads it.
        for layer, following in zip(layers, [*layers[1:], None], strict=True):
            readers = (layer.ffn_router, None if following is None else following.block_router)
            layer.shows_attention = any(
                router is not None and bool(router.needs & {"attention", "received"})
                for router in readers
            )
        self.layers = nn.ModuleList(layers)
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)

    def reset(self, seed: int) -> None:
        """Draw every weight of the backbone and the paths by (seed, name).

        Routers keep their draws of `build`.
        """
        self.embedding.weight.data.copy_(normal(seed, "embedding", *self.embedding.weight.shape))
        # A zero head predicts the uniform distribution: every seed starts at the same loss.
        self.head.weight.data.zero_()
        # A module list does not state the type of its modules.
        for layer in cast("Iterable[Layer]", self.layers):
            layer.attention.reset(_draw(seed, f"layers.{layer.index}.attention"))
            layer.ffn.reset(_draw(seed, f"layers.{layer.index}.ffn"))
            if layer.memory is not None:
                layer.memory.reset()

    def forward(self, run: Pass) -> Float[Tensor, "batch seq vocab"]:
        """Return the logits of the next token at every position. `run.traces` gets the traces."""
        if self.truth is not None and any("truth" in router.needs for router in self.routers):
            run.truth = torch.from_numpy(self.truth(run.tokens.cpu().numpy())).to(run.tokens.device)
        return self.resume(0, rms_norm(self.embedding(run.tokens)), run)

    def resume(
        self, first: int, x: Float[Tensor, "batch seq d_model"], run: Pass
    ) -> Float[Tensor, "batch seq vocab"]:
        """Return the logits from the input of layer `first`, for passes that fork from another."""
        for layer in list(self.layers)[first:]:
            if run.history is not None:
                run.history.entering.append(x.detach())
                run.history.attention.append(run.attention)
            x = layer(x, run)
        return self.head(rms_norm(x))

    @property
    def routers(self) -> list[Router]:
        """The routers in the order of their traces."""
        held = [
            router for layer in self.layers for router in (layer.ffn_router, layer.block_router)
        ]
        return [router for router in held if router is not None]  # type: ignore[misc]


def _draw(seed: int, prefix: str) -> Callable[[str, int, int], Tensor]:
    return lambda name, rows, columns: normal(seed, f"{prefix}.{name}", rows, columns)


def device_of(decoder: Decoder) -> torch.device:
    """Return the device of the model."""
    return decoder.head.weight.device
