"""Write the dense model and its training step out, without the harness.

The plain model computes the same as the dense row. It knows no router, plan, trace or ledger, so
the difference in time is the work of the harness.
"""

from collections.abc import Callable, Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.backbone.decoder import Decoder, Layer
from bench.backbone.layers import fused_attention
from bench.backbone.passes import autocast
from bench.backbone.sites import PathSet
from bench.config.recipe import TrainConfig
from bench.training.optim import Muon


class PlainLayer(nn.Module):
    """Attention and SwiGLU, pre-norm, with the weights of a layer of the decoder."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        attention = layer.attention
        # A dense row may use the full path of a routed layer.
        ffn = layer.ffn.full if isinstance(layer.ffn, PathSet) else layer.ffn
        self.heads = attention.num_heads
        self.qkv, self.out = _copy(attention.qkv), _copy(attention.out)
        self.gate, self.up, self.down = (_copy(part[0]) for part in (ffn.gate, ffn.up, ffn.down))
        self.gain: nn.Parameter | None = None
        if attention.query_gain is not None and attention.key_gain is not None:
            self.gain = _copy(torch.stack((attention.query_gain, attention.key_gain)))

    def forward(self, x: Tensor, turn: Tensor) -> Tensor:
        """Run the layer on `[batch, seq, d_model]`."""
        batch, seq, d = x.shape
        dim = d // self.heads
        qkv = F.linear(F.rms_norm(x, (d,)), self.qkv.view(3 * d, d))
        qkv = qkv.view(batch, seq, 3 * self.heads, dim)
        query_key, value = qkv.split((2 * self.heads, self.heads), dim=2)
        query_key = F.rms_norm(query_key, (dim,))
        if self.gain is not None:
            query_key = query_key * self.gain.repeat_interleave(self.heads, 0).to(query_key.dtype)
        pairs = torch.view_as_complex(query_key.float().unflatten(-1, (-1, 2)))
        turned = torch.view_as_real(pairs * turn).flatten(-2).to(value.dtype)
        query, key = turned.transpose(1, 2).chunk(2, dim=1)
        seen = fused_attention(query, key, value.transpose(1, 2), causal=True)
        x = x + F.linear(seen.transpose(1, 2).reshape(batch, seq, d), self.out)
        # SwiGLU.
        hidden = F.rms_norm(x, (d,))
        gated = F.silu(F.linear(hidden, self.gate)) * F.linear(hidden, self.up)
        return x + F.linear(gated, self.down)


class Plain(nn.Module):
    """The dense decoder, with the weights of another."""

    turn: Tensor

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.d_model = decoder.config.d_model
        self.embedding = nn.Embedding.from_pretrained(
            decoder.embedding.weight.detach().clone(), freeze=False
        )
        found = list(cast("Iterable[Layer]", decoder.layers))
        self.layers = nn.ModuleList(PlainLayer(layer) for layer in found)
        self.head = _copy(decoder.head.weight)
        turn = torch.view_as_complex(found[0].attention.rotary.turn)
        self.register_buffer("turn", turn.unsqueeze(1).clone())

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits `[batch, seq, vocab]`."""
        x = F.rms_norm(self.embedding(tokens), (self.d_model,))
        turn = self.turn[: tokens.shape[1]]
        for layer in self.layers:
            x = layer(x, turn)
        return F.linear(F.rms_norm(x, (self.d_model,)), self.head)


def plain_step(
    decoder: Decoder, config: TrainConfig, dtype: torch.dtype
) -> Callable[[Tensor], Tensor]:
    """Return a training step on tokens `[batch, seq + 1]` that returns the loss.

    Args:
        decoder: the dense model, whose weights are copied.
        config: the recipe; its learning rates stay at their peaks.
        dtype: precision of matrix products.
    """
    model = Plain(decoder)
    # The gains of queries and keys are shorter than a row, and AdamW trains them.
    matrices = [p for p in model.layers.parameters() if p.shape[-1] >= model.d_model]
    taken = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in taken]
    optimisers = (
        Muon(matrices, lr=config.muon_lr, low=config.muon_dtype == "bfloat16"),
        torch.optim.AdamW(
            rest, lr=config.adam_lr, betas=(0.9, 0.95), weight_decay=0.0, foreach=True
        ),
    )

    def step(tokens: Tensor) -> Tensor:
        device = model.head.device
        tokens = tokens.to(device)
        with autocast(device, dtype):
            logits = model(tokens[:, :-1])
        loss = F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def _copy(weight: Tensor) -> nn.Parameter:
    return nn.Parameter(weight.detach().clone())
