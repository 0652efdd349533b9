"""Random choices of experts."""

import torch
from torch import Tensor

from bench.rng import generator

BATCH, SEQ, EXPERTS, ACTIVE = 3, 16, 8, 2


def drawn(seed: int = 0, active: int = ACTIVE) -> tuple[Tensor, Tensor]:
    """Random probabilities, and the choice of the best."""
    logits = torch.randn(BATCH, SEQ, EXPERTS, generator=generator(seed, "logits"))
    chosen = torch.zeros_like(logits, dtype=torch.bool)
    return logits.softmax(-1), chosen.scatter(2, logits.topk(active).indices, True)
