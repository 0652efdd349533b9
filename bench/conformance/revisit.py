"""Every knob setting that the headline is read from, a second time: losses must come out again, and
must not feel a changed ending.

The causality proof (`bench.conformance.causality`) searches the model at B. The headline is
interpolated between settings beside it, and a router that looked ahead there, or counted
evaluations, would pass that search.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from bench.backbone.decoder import device_of
from bench.backbone.passes import autocast, make_pass
from bench.conformance.comparison import by_position
from bench.data import Windows
from bench.evaluation.evaluate import window_tensors
from bench.model.assemble import Model

TOLERANCE = 1e-2
"""Nats by which a token's loss may differ by rounding.

A bfloat16 decision that turns moves a few tokens by more.
"""
TURNED = 0.02
"""Share of tokens, and of sequences, that may differ all the same, since decisions near their
threshold turn by rounding.
"""
TURNED_LOW_PRECISION = 0.5
"""Share of sequences below float32."""


@dataclass(frozen=True)
class Visited:
    """One setting of the sweep.

    Attributes:
        knobs: of each router, None where it has none.
        nats: the losses that were found.
    """

    knobs: list[Tensor | None]
    nats: Float[np.ndarray, "window seq"]


@torch.no_grad()
def revisit(
    model: Model, windows: Windows, visited: list[Visited], batch_size: int, dtype: torch.dtype
) -> str:
    """Evaluate the first batch of windows again at each setting, as it was, and with other endings.

    Args:
        model: the model; its knobs are left as they were found.
        windows: the validation windows that were evaluated.
        visited: the settings, with their losses.
        batch_size: of the evaluation.
        dtype: of the evaluation.

    Returns:
        What is wrong, empty if nothing is.
    """
    tokens, tags = (part[:batch_size] for part in window_tensors(windows, device_of(model.decoder)))
    cut = 1 + torch.arange(len(tokens), device=tokens.device).unsqueeze(1) * (
        tokens.shape[1] - 2
    ) // max(1, len(tokens) - 1)
    later = torch.arange(tokens.shape[1], device=tokens.device) >= cut
    endings = torch.where(later, tokens.roll(1, 0), tokens)
    before = knobs_of(model)
    try:
        for setting in visited:
            _turn(model, setting.knobs)
            expected = torch.from_numpy(setting.nats[:batch_size]).to(tokens.device)
            (nats, masks), (other_nats, others) = (
                _run(model, text, tokens, tags, dtype) for text in (tokens, endings)
            )
            off = float(((nats - expected).abs() > TOLERANCE).float().mean())
            if off > TURNED:
                return f"Sweep: losses at a knob setting that the headline is read from do not come out again ({off:.0%} of the tokens)."
            differs = torch.stack(
                [(one != other).any(-1) for one, other in zip(masks, others, strict=True)]
            ).any(0)
            felt = (
                (nats - other_nats).abs() > TOLERANCE
            )  # of the original targets: a router that sees the next token foretells it
            moved = ((differs | felt) & ~later[:, :-1]).any(1)
            allowed = TURNED if dtype is torch.float32 else TURNED_LOW_PRECISION
            if int(moved.sum()) > max(1, allowed * len(moved)):
                return (
                    "Sweep: plans or losses at a knob setting that the headline is read from depend on what stands later "
                    f"({moved.sum()} sequences)."
                )
    finally:
        _turn(model, before)
    return ""


def knobs_of(model: Model) -> list[Tensor | None]:
    """A copy of each router's knob, None where it has none."""
    return [
        None if router.knob is None else router.knob.clone() for router in model.decoder.routers
    ]


def _turn(model: Model, knobs: list[Tensor | None]) -> None:
    for router, value in zip(model.decoder.routers, knobs, strict=True):
        if router.knob is not None and value is not None:
            router.knob.copy_(value)


def _run(
    model: Model, tokens: Tensor, original: Tensor, tags: Tensor, dtype: torch.dtype
) -> tuple[Float[Tensor, "batch seq"], list[Tensor]]:
    """Losses of the original targets, and the plan of every site by position."""
    run = make_pass(tokens[:, :-1], tags)
    with autocast(tokens.device, dtype):
        logits = model.decoder(run)
    nats = F.cross_entropy(logits.float().transpose(1, 2), original[:, 1:], reduction="none")
    return nats, [by_position(trace.plan.mask, trace, run.tokens.shape[1]) for trace in run.traces]
