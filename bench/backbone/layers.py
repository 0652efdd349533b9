"""Define norm, rotary positions and causal attention."""

from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bench.backbone.paths import Draw, autocast_on_cpu

KeysValues = tuple[Float[Tensor, "batch head _seq dim"], Float[Tensor, "batch head _seq dim"]]
"""Keys and values of a layer's tokens, normalised and rotated."""


def rms_norm(x: Float[Tensor, "... dim"]) -> Float[Tensor, "... dim"]:
    """Normalise by the root mean square, without a gain. The matrix that follows can hold one."""
    return F.rms_norm(x, (x.shape[-1],))


@lru_cache(maxsize=16)
def turns(head_dim: int, max_seq_len: int, base: float) -> Float[Tensor, "position pair 2"]:
    """Return cosine and sine of each pair of channels at each position.

    All layers share one table. A new one for each took a third of the time to build a model.
    """
    # A model without weights is built on the device "meta", which has no numbers.
    with torch.device("cpu"):
        frequency = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
        angle = torch.outer(torch.arange(max_seq_len, dtype=torch.float64), frequency)
        return torch.view_as_real(torch.polar(torch.ones_like(angle), angle)).float()


class Rotary(nn.Module):
    """Rotary position embedding (arXiv:2104.09864), looked up by absolute position.

    Tokens gathered by a router keep their original positions, so positions are looked up and not
    sliced. Neighbouring channels form the pairs. Then a rotation is one complex product, which on a
    CPU takes half the time of four real ones.
    """

    turn: Tensor

    def __init__(self, head_dim: int, max_seq_len: int, base: float = 10_000.0) -> None:
        super().__init__()
        turn = turns(head_dim, max_seq_len, base).to(torch.get_default_device())
        self.register_buffer("turn", turn, persistent=False)

    def forward(
        self, x: Float[Tensor, "batch seq head dim"], positions: Int[Tensor, "batch seq"]
    ) -> Float[Tensor, "batch seq head dim"]:
        """Rotate each pair (x_2i, x_2i+1) by position * frequency_i."""
        # The sequences of a batch share one row of positions, unless a router gathered tokens.
        rows = positions[:1] if positions.stride(0) == 0 else positions
        turn = torch.view_as_complex(self.turn[rows]).unsqueeze(2)
        pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * turn).flatten(-2).to(x.dtype)


def fused_attention(
    query: Float[Tensor, "batch head query dim"],
    key: Float[Tensor, "batch head key dim"],
    value: Float[Tensor, "batch head key dim"],
    mask: Bool[Tensor, "batch #head query key"] | None = None,
    causal: bool = False,
) -> Float[Tensor, "batch head query dim"]:
    """Attend with the fused kernel of torch.

    Args:
        query: queries.
        key: keys.
        value: values.
        mask: allowed (query, key) pairs; None to allow all.
        causal: allow the pairs whose key is not after the query; `mask` is None then.
    """
    if autocast_on_cpu(query):
        # In bfloat16 the kernel's backward pass takes three times as long as in float32.
        query, key, value = query.float(), key.float(), value.float()
        with torch.autocast("cpu", enabled=False):
            return F.scaled_dot_product_attention(query, key, value, mask, is_causal=causal)
    return F.scaled_dot_product_attention(query, key, value, mask, is_causal=causal)


class Attention(nn.Module):
    """Causal self-attention with rotary positions and normalised queries and keys.

    `qkv` is a stack of three projections, so that Muon orthogonalises each. The output projection
    is zero at the start.

    Args:
        d_model: length of the inputs.
        num_heads: number of heads.
        max_seq_len: number of positions.
        qk_gain: learn a gain on each channel of the normalised queries and keys, shared by the
            heads (Qwen3, arXiv:2505.09388). Without it the logits of attention are at most the
            root of the head's size, since normalisation takes any scale of the projections away.
    """

    def __init__(
        self, d_model: int, num_heads: int, max_seq_len: int, qk_gain: bool = False
    ) -> None:
        super().__init__()
        self.d_model, self.num_heads = d_model, num_heads
        self.qkv = nn.Parameter(torch.empty(3, d_model, d_model))
        self.out = nn.Parameter(torch.empty(d_model, d_model))
        head_dim = d_model // num_heads
        # Two vectors and not one matrix, so that AdamW trains them and not Muon.
        self.query_gain = nn.Parameter(torch.ones(head_dim)) if qk_gain else None
        self.key_gain = nn.Parameter(torch.ones(head_dim)) if qk_gain else None
        self.rotary = Rotary(head_dim, max_seq_len)

    def reset(self, draw: Draw) -> None:
        """Draw the weights: variance 1 / fan-in, zeros for the output projection, gains of 1."""
        rows = draw("qkv", 3 * self.d_model, self.d_model)
        self.qkv.data.copy_(rows.view_as(self.qkv) * self.d_model**-0.5)
        self.out.data.zero_()
        if self.query_gain is not None and self.key_gain is not None:
            self.query_gain.data.fill_(1.0)
            self.key_gain.data.fill_(1.0)

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        positions: Int[Tensor, "batch seq"],
        mask: Bool[Tensor, "batch seq seq"] | None = None,
        kept: list[KeysValues] | None = None,
    ) -> Float[Tensor, "batch seq d_model"]:
        """Attend.

        Args:
            x: normalised inputs, in order of position.
            positions: absolute position of each token.
            mask: allowed (query, key) pairs; None for causal attention over all tokens of `x`.
            kept: gets the keys and values, for decoding; None to keep nothing.
        """
        heads = self.heads(x, positions)
        if kept is not None:
            kept.append(heads[1:])
        allowed = None if mask is None else mask.unsqueeze(1)
        out = fused_attention(*heads, allowed, causal=mask is None)
        return F.linear(out.transpose(1, 2).reshape(x.shape), self.out)

    def with_weights(
        self,
        x: Float[Tensor, "batch seq d_model"],
        positions: Int[Tensor, "batch seq"],
        mask: Bool[Tensor, "batch seq seq"] | None = None,
        valid: Bool[Tensor, "batch seq"] | None = None,
        kept: list[KeysValues] | None = None,
    ) -> tuple[Float[Tensor, "batch seq d_model"], Float[Tensor, "batch seq 2"]]:
        """Attend, and return the attention that each token gives itself and receives in sum.

        Both are means over heads, without gradient. The products and their price are those of
        `forward`.

        Args:
            x: normalised inputs, in order of position.
            positions: absolute position of each token.
            mask: see `forward`.
            valid: False for tokens that fill up a sequence; their outputs do not count.
            kept: see `forward`.
        """
        # Fused kernels return no weights, so the products are written out. This is slower.
        query, key, value = self.heads(x, positions)
        if kept is not None:
            kept.append((key, value))
        allowed = (
            torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
            if mask is None
            else mask.unsqueeze(1)
        )
        weights = (
            ((query @ key.mT) * query.shape[-1] ** -0.5)
            .masked_fill(~allowed, -torch.inf)
            .softmax(-1)
        )
        given = weights.detach().float().mean(1)  # [batch, query, key]
        own = given.diagonal(dim1=-2, dim2=-1)
        counted = given if valid is None else given * valid.unsqueeze(-1)
        out = weights.to(value.dtype) @ value
        shown = torch.stack((own, counted.sum(1)), dim=-1)
        return F.linear(out.transpose(1, 2).reshape(x.shape), self.out), shown

    def heads(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, each `[batch, head, seq, dim]`."""
        batch, seq, d_model = x.shape
        qkv = F.linear(x, self.qkv.view(3 * d_model, d_model)).view(
            batch, seq, 3 * self.num_heads, d_model // self.num_heads
        )
        # Queries and keys are normalised and rotated together.
        query_key, value = qkv.split((2 * self.num_heads, self.num_heads), dim=2)
        query_key = rms_norm(query_key)
        if self.query_gain is not None and self.key_gain is not None:
            gain = torch.stack((self.query_gain, self.key_gain))
            query_key = query_key * gain.repeat_interleave(self.num_heads, 0).to(query_key.dtype)
        query, key = self.rotary(query_key, positions).chunk(2, dim=2)
        return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)

    def flops(self) -> float:
        """Return the FLOPs of the four projections per token."""
        return 8.0 * self.d_model**2

    def pair_flops(self) -> float:
        """Return the FLOPs per (query, key) pair, of scores and values, all heads together."""
        return 4.0 * self.d_model
