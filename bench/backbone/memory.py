"""Define a memory of token pairs: parameters that a token reads without any product."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from bench.rng import hash_uniform


class PairMemory(nn.Module):
    """A table of vectors. Each pair of (previous, current) token looks up one of them by a hash.

    It is a plain form of the memory of arXiv:2601.07372. Pairs may share a vector. The table is
    zero at the start, like all weights that write into the residual stream.

    Args:
        rows: number of vectors in the table.
        d_model: length of a vector.
        layer: index of the layer, for a hash of its own.
    """

    def __init__(self, rows: int, d_model: int, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.table = nn.Parameter(torch.zeros(rows, d_model))

    def reset(self) -> None:
        """Set the table to zero."""
        self.table.data.zero_()

    def rows_of(self, tokens: Int[Tensor, "batch seq"]) -> Int[Tensor, "batch seq"]:
        """Return the row of each token and the token before it; -1 comes before the first."""
        before = F.pad(tokens[:, :-1], (1, 0), value=-1)
        rows = len(self.table)
        return (hash_uniform(self.layer, before, tokens) * rows).long().clamp_max(rows - 1)

    def forward(self, tokens: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq d_model"]:
        """Look up the vector of each token."""
        return F.embedding(self.rows_of(tokens), self.table)

    @property
    def unread(self) -> int:
        """Return the number of parameters that a token does not read."""
        return self.table.numel() - self.table.shape[1]
