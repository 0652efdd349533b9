"""Define the paths of an FFN site: banks of SwiGLU FFNs and the low-rank cheap FFN.

Every FFN of the decoder is a bank; a dense layer is a bank of one. The hidden units of a bank are
drawn in one sequence under the layer's name, so expert e holds the units [e*width, (e+1)*width) of
the dense layer's draw.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

Draw = Callable[[str, int, int], Tensor]
"""(name, rows, columns) -> standard normal. Rows are drawn in order: see `bench.rng.normal`."""
TOKEN_MULTIPLE = 32
"""Tokens of a SwiGLU FFN in bfloat16 on a CPU are padded to a multiple of this."""


def autocast_on_cpu(x: Tensor) -> bool:
    """Say whether products with `x` are made in bfloat16 on a CPU, where kernels differ."""
    return x.is_cpu and torch.is_autocast_enabled("cpu")


def _swiglu(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    if x.ndim == 2 and autocast_on_cpu(x) and (spare := -len(x) % TOKEN_MULTIPLE):
        # A CPU compiles a product in bfloat16 for each new number of rows, so let there be few.
        return _swiglu(F.pad(x, (0, 0, 0, spare)), gate, up, down)[: len(x)]
    return F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)


class ExpertBank(nn.Module):
    """`count` SwiGLU FFNs of equal width, held as stacked parameters.

    Shapes: gate and up are `[count, width, d_model]`, down is `[count, d_model, width]` and zero at
    the start.
    """

    def __init__(self, d_model: int, width: int, count: int = 1) -> None:
        super().__init__()
        self.d_model, self.width, self.count = d_model, width, count
        self.gate = nn.Parameter(torch.empty(count, width, d_model))
        self.up = nn.Parameter(torch.empty(count, width, d_model))
        self.down = nn.Parameter(torch.empty(count, d_model, width))

    def reset(self, draw: Draw) -> None:
        """Draw the weights: variance 1 / fan-in, and zeros where the residual stream is written."""
        for name, parameter in (("gate", self.gate), ("up", self.up)):
            rows = draw(name, self.count * self.width, self.d_model)
            parameter.data.copy_(rows.view_as(parameter) * self.d_model**-0.5)
        self.down.data.zero_()

    def forward(
        self,
        x: Float[Tensor, "*token d_model"],
        index: int = 0,
        merge: Float[Tensor, "batch count"] | None = None,
        sizes: Sequence[int] | None = None,
    ) -> Float[Tensor, "*token d_model"]:
        """Run one expert, a weighted mean of all, or every expert on its own tokens.

        Args:
            x: tokens. With `merge` they are `[batch, token, d_model]`; with `sizes` the tokens of
                expert 0 come first.
            index: index of the expert to run.
            merge: weights of the experts in the mean, per sequence.
            sizes: number of tokens of each expert.
        """
        if sizes is not None:
            # Take the stacks apart once: indexing them expert by expert would make the backward
            # pass fill a whole stack for each expert.
            experts = zip(
                x.split(list(sizes)),
                self.gate.unbind(),
                self.up.unbind(),
                self.down.unbind(),
                strict=True,
            )
            return torch.cat([_swiglu(*expert) for expert in experts])
        if merge is not None:
            gate, up, down = (
                torch.einsum("be,eij->bji", merge, rows) for rows in (self.gate, self.up, self.down)
            )
            return (F.silu(x @ gate) * (x @ up)) @ down
        return _swiglu(x, self.gate[index], self.up[index], self.down[index])

    def grouped(
        self, x: Float[Tensor, "token d_model"], ends: Int[Tensor, " count"]
    ) -> Float[Tensor, "token d_model"]:
        """Run all experts at once on tokens sorted by expert.

        Args:
            x: tokens, those of expert 0 first.
            ends: end of each expert's tokens in `x`, int32.
        """
        device = x.device.type
        # Autocast does not cover this kernel, so its precision is applied by hand.
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        # The kernel needs rows of whole 16 bytes, so the hidden width is padded with zeros.
        spare = -self.width % (16 // dtype.itemsize)
        gate, up = (
            F.pad(rows.to(dtype), (0, 0, 0, spare)).transpose(1, 2) for rows in (self.gate, self.up)
        )
        down = F.pad(self.down.to(dtype), (0, spare)).transpose(1, 2)
        x = x.to(dtype)
        hidden = F.silu(F.grouped_mm(x, gate, offs=ends)) * F.grouped_mm(x, up, offs=ends)
        return F.grouped_mm(hidden, down, offs=ends)

    def flops(self) -> float:
        """Return the FLOPs per token of one expert."""
        # Three products of d_model x width at 2 FLOPs per entry.
        return 6.0 * self.d_model * self.width


class LowRank(nn.Module):
    """The cheap path d -> rank -> d (arXiv:2604.17228), with output zero at the start."""

    def __init__(self, d_model: int, rank: int) -> None:
        super().__init__()
        self.d_model, self.rank = d_model, rank
        self.down = nn.Parameter(torch.empty(rank, d_model))
        self.up = nn.Parameter(torch.empty(d_model, rank))

    def reset(self, draw: Draw) -> None:
        """Draw the weights: variance 1 / fan-in, and zeros where the residual stream is written."""
        self.down.data.copy_(draw("down", self.rank, self.d_model) * self.d_model**-0.5)
        self.up.data.zero_()

    def forward(self, x: Float[Tensor, "*token d_model"]) -> Float[Tensor, "*token d_model"]:
        """Project down, then up."""
        return F.linear(F.linear(x, self.down), self.up)

    def flops(self) -> float:
        """Return the FLOPs per token."""
        return 4.0 * self.d_model * self.rank
