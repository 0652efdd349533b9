"""Find the loss of each token, without a second copy of logits that are large."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

MAX_NUMBERS = 2**24
"""Logits of more numbers are read in pieces of at most so many: 64 MiB in float32."""


def token_losses(
    logits: Float[Tensor, "batch seq vocab"], targets: Int[Tensor, "batch seq"]
) -> Float[Tensor, "batch seq"]:
    """Return the loss of each target, nats per token, in float32."""
    rows, wanted = logits.flatten(0, 1), targets.flatten()
    if logits.numel() <= MAX_NUMBERS:
        nats = F.cross_entropy(rows.float(), wanted, reduction="none")
    else:
        nats = _LossesInPieces.apply(rows, wanted)
    return nats.view(targets.shape)


def mean_loss(
    logits: Float[Tensor, "batch seq vocab"], targets: Int[Tensor, "batch seq"]
) -> Float[Tensor, ""]:
    """Return the mean loss, nats per token, in float32."""
    if logits.numel() <= MAX_NUMBERS:
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
    return token_losses(logits, targets).mean()


class _LossesInPieces(torch.autograd.Function):
    """Cross-entropy that keeps the logits and one number a token for its backward pass.

    `F.cross_entropy` keeps their log-softmax in float32 beside them, and its backward pass makes
    two more tensors of that size.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the losses, `[token]` in float32, of logits `[token, vocab]`."""
        pieces = logits.split(_tokens_of_a_piece(logits))
        total = torch.cat([piece.float().logsumexp(-1) for piece in pieces])
        ctx.save_for_backward(logits, targets, total)
        return total - logits.gather(1, targets.unsqueeze(1)).squeeze(1).float()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of the logits: softmax less one at the target, times that of nats."""
        (gradient,), (logits, targets, total) = gradients, ctx.saved_tensors
        result, size = torch.empty_like(logits), _tokens_of_a_piece(logits)
        parts = (tensor.split(size) for tensor in (logits, targets, total, gradient, result))
        for piece, target, norm, factor, into in zip(*parts, strict=True):
            change = (piece.float() - norm[:, None]).exp_()
            change[torch.arange(len(piece), device=piece.device), target] -= 1.0
            into.copy_(change.mul_(factor[:, None]))
        return result, None


def _tokens_of_a_piece(logits: Float[Tensor, "token vocab"]) -> int:
    return max(1, MAX_NUMBERS // logits.shape[1])
