"""Losses of tokens equal PyTorch's, and large logits are not copied in float32."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.backbone import token_losses as module
from bench.backbone.token_losses import mean_loss, token_losses

VOCAB = 13


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a piece hold five tokens, so that the last piece of 2 x 6 tokens is smaller."""
    monkeypatch.setattr(module, "MAX_NUMBERS", 5 * VOCAB)


def drawn(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Draw logits and targets of 2 x 6 tokens."""
    draw = torch.Generator().manual_seed(3)
    logits = 4.0 * torch.randn(2, 6, VOCAB, generator=draw)
    return logits.to(dtype).requires_grad_(), torch.randint(VOCAB, (2, 6), generator=draw)


def in_float64(logits: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the losses of PyTorch in float64, and the gradient of their weighted sum."""
    exact = logits.detach().double().requires_grad_()
    nats = F.cross_entropy(exact.flatten(0, 1), targets.flatten(), reduction="none").view(2, 6)
    (nats * weights).sum().backward()
    assert exact.grad is not None
    return nats.detach(), exact.grad


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 1e-6), (torch.bfloat16, 2.0**-8)])
def test_pieces_give_the_losses_and_gradients_of_pytorch(
    dtype: torch.dtype, rounding: float
) -> None:
    logits, targets = drawn(dtype)
    # Tokens may count unequally, some not at all.
    weights = torch.linspace(0.0, 2.0, 12).view(2, 6)
    nats = token_losses(logits, targets)
    (nats * weights).sum().backward()
    losses, gradient = in_float64(logits, targets, weights)
    assert logits.grad is not None and logits.grad.dtype == dtype and nats.dtype == torch.float32
    torch.testing.assert_close(nats.double(), losses, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(logits.grad.double(), gradient, rtol=rounding, atol=1e-6)
    torch.testing.assert_close(mean_loss(logits, targets).double(), losses.mean())


@pytest.mark.usefixtures("pieces")
def test_pieces_keep_nothing_of_the_size_of_the_logits_but_themselves() -> None:
    logits, targets = drawn(torch.bfloat16)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        token_losses(logits, targets)
    large = [one for one in kept if one.numel() == logits.numel()]
    assert [one.data_ptr() for one in large] == [logits.data_ptr()]


def test_small_logits_keep_the_bits_of_pytorch() -> None:
    logits, targets = drawn(torch.float32)
    rows, wanted = logits.flatten(0, 1), targets.flatten()
    assert torch.equal(
        token_losses(logits, targets).flatten(), F.cross_entropy(rows, wanted, reduction="none")
    )
    assert torch.equal(mean_loss(logits, targets), F.cross_entropy(rows, wanted))
