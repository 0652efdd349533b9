"""Hold the columns of decoded sequences: as many for each sequence as it has taken so far."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from bench.backbone.layers import Attention, KeysValues, fused_attention

ROOM = 64
"""Columns that a full cache grows by."""

Rows = Int[Tensor, " row"]
"""Indices of the sequences that take part, ascending, on the CPU."""


class Ragged:
    """Columns of each sequence, packed from the left. Sequences may have different numbers of them.

    Args:
        data: the columns, `[batch, seq, ...]`.
        lengths: number of columns of each sequence; the rest of `data` is padding.
    """

    def __init__(
        self, data: Shaped[Tensor, "batch seq *rest"], lengths: Int[Tensor, " batch"]
    ) -> None:
        # Lengths stay on the CPU, so that sizes can be read without waiting for the device.
        self.data, self.lengths = data, lengths.cpu().clone()

    def append(self, rows: Rows, column: Shaped[Tensor, "row *rest"]) -> None:
        """Add one column to some of the sequences."""
        at = self.lengths[rows]
        if len(at) and int(at.max()) == self.data.shape[1]:
            # Padding is given from the last axis on; the second axis grows at its end.
            spare = (0, 0) * (self.data.dim() - 2) + (0, ROOM)
            self.data = F.pad(self.data, spare)
        device = self.data.device
        self.data[rows.to(device), at.to(device)] = column
        self.lengths[rows] += 1

    def of(self, rows: Rows) -> Shaped[Tensor, "row longest *rest"]:
        """Return the columns of some sequences, padded to the longest of them."""
        longest = int(self.lengths[rows].max()) if len(rows) else 0
        # Where all sequences take part, no copy is needed.
        data = self.data if len(rows) == len(self.data) else self.data[rows.to(self.data.device)]
        return data[:, :longest]

    def real(self, rows: Rows) -> Bool[Tensor, "row longest"] | None:
        """Return which columns of `of` are no padding; None if all are."""
        lengths = self.lengths[rows]
        if not len(rows) or int(lengths.min()) == int(lengths.max()):
            return None
        real = torch.arange(int(lengths.max())) < lengths.unsqueeze(1)
        return real.to(self.data.device)

    @property
    def size(self) -> int:
        """Return the bytes of all columns, without padding."""
        column = self.data[0, :1].numel() if self.data.shape[1] else self.data[0].numel()
        return int(self.lengths.sum()) * column * self.data.element_size()

    @property
    def reserved(self) -> int:
        """Return the bytes in memory: with padding, and with room to grow."""
        return self.data.numel() * self.data.element_size()


def cache_of(kept: KeysValues, lengths: Int[Tensor, " batch"]) -> Ragged:
    """Make the cache of a layer from the keys and values of a parallel pass.

    A column of it is `[2, head, dim]`: a key and a value.
    """
    # [batch, head, seq, dim] twice -> [batch, seq, 2, head, dim]
    return Ragged(torch.stack(kept, dim=2).permute(0, 3, 2, 1, 4).contiguous(), lengths)


def attend(
    attention: Attention,
    x: Float[Tensor, "row 1 d_model"],
    positions: Int[Tensor, "row 1"],
    cache: Ragged,
    rows: Rows,
    shown: bool,
) -> tuple[Float[Tensor, "row 1 d_model"], Float[Tensor, "row 1 2"] | None]:
    """Attend from one new token of each sequence to the cached ones and itself.

    Args:
        attention: attention of the layer.
        x: normalised inputs of the new tokens.
        positions: their absolute positions.
        cache: keys and values of the layer; those of the new tokens are added.
        rows: the sequences of the new tokens.
        shown: whether a router reads the attention.

    Returns:
        The output, and the attention that each token gives itself if it is shown. The attention
        that it receives comes later, and is 0 here.
    """
    query, key, value = attention.heads(x, positions)
    cache.append(rows, torch.stack((key, value), dim=1).squeeze(3))
    keys, values = cache.of(rows).permute(2, 0, 3, 1, 4)  # [row, head, seq, dim] each
    real = cache.real(rows)
    mask = None if real is None else real.view(len(rows), 1, 1, -1)
    out = fused_attention(query, keys, values, mask)
    out = F.linear(out.transpose(1, 2).reshape(x.shape), attention.out)
    if not shown:
        return out, None
    scores = (query @ keys.mT) * query.shape[-1] ** -0.5
    scores = scores if mask is None else scores.masked_fill(~mask, -torch.inf)
    # The new token is the last real column of its sequence.
    last = (cache.lengths[rows] - 1).to(x.device).view(-1, 1, 1, 1)
    given = scores.softmax(-1).float().mean(1, keepdim=True)
    own = given.gather(3, last).view(-1, 1)
    return out, torch.stack((own, torch.zeros_like(own)), dim=-1)
