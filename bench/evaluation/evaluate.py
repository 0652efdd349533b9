"""Causal evaluation on fixed windows, with the knobs as they are."""

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from bench.backbone.decoder import device_of
from bench.backbone.passes import Decide, ask, autocast, make_pass
from bench.data import Windows
from bench.model.assemble import Model
from bench.routing.contract import LayerTrace


@dataclass
class Evaluation:
    """What a causal evaluation saw.

    Attributes:
        nats: loss of each token, `[window, seq]`.
        active: active FLOPs a token.
        executed: FLOPs a token with full-square attention and padding.
        masks: a routed site -> its plans, `[window, seq, path]`; kept on request.
        scores: likewise, where the plan had scores.
        latents: likewise, where the plan had a prediction of what each path does,
            `extras["latent"]`.
    """

    nats: Float[np.ndarray, "window seq"]
    active: float
    executed: float
    masks: dict[int, Bool[Tensor, "window seq path"]] = field(default_factory=dict[int, Tensor])
    scores: dict[int, Float[Tensor, "window seq path"]] = field(default_factory=dict[int, Tensor])
    latents: dict[int, Float[Tensor, "window seq path latent"]] = field(
        default_factory=dict[int, Tensor]
    )


def window_tensors(windows: Windows, device: torch.device) -> tuple[Tensor, Tensor]:
    """Tokens `[window, seq + 1]` and tags `[window, seq]` as tensors."""
    tokens = torch.from_numpy(windows.tokens).to(device)
    tags = torch.from_numpy(windows.tags).to(device)
    return tokens, tags.unsqueeze(1).expand(-1, tokens.shape[1] - 1)


@torch.no_grad()
def evaluate(
    model: Model,
    windows: Windows,
    batch_size: int,
    dtype: torch.dtype = torch.float32,
    keep: bool = False,
    decide: Decide = ask,
) -> Evaluation:
    """Evaluate causally on fixed windows, and book what that cost.

    Args:
        model: the model, its knobs set.
        windows: what to evaluate on.
        batch_size: windows at a time; it changes nothing but speed.
        dtype: precision of matrix products.
        keep: keep plans and scores, for metrics.
        decide: the way to a plan, for a meter.
    """
    decoder, ledger, device = model.decoder, model.evaluation_ledger, device_of(model.decoder)
    tokens, tags = window_tensors(windows, device)
    nats: list[Tensor] = []
    booked: list[tuple[list[Tensor], int]] = []
    result = Evaluation(np.empty((0, 0)), 0.0, 0.0)
    kept: list[list[LayerTrace]] = []
    for start in range(0, len(tokens), batch_size):
        batch = tokens[start : start + batch_size]
        run = make_pass(batch[:, :-1], tags[start : start + batch_size], decide=decide)
        with autocast(device, dtype):
            logits = decoder(run)
        nats.append(
            F.cross_entropy(
                logits.float().flatten(0, 1), batch[:, 1:].flatten(), reduction="none"
            ).view(batch[:, 1:].shape)
        )
        booked.append((run.counts, run.tokens.numel()))
        if keep:
            kept.append(run.traces)
    # All batches pay the same price, though a meter may raise it in any of them.
    active = sum((ledger.active(*batch) for batch in booked), 0.0)
    executed = sum((ledger.executed(*batch, padded=True) for batch in booked), 0.0)
    total = tokens[:, :-1].numel()
    ledger.charge("evaluation", "forward", active)
    result.nats, result.active, result.executed = (
        torch.cat(nats).double().cpu().numpy(),
        active / total,
        executed / total,
    )
    for site, traces in enumerate(zip(*kept, strict=True)):
        result.masks[site] = torch.cat([trace.plan.mask for trace in traces]).cpu()
        if all(trace.plan.scores is not None for trace in traces):
            result.scores[site] = (
                torch.cat([trace.plan.scores for trace in traces if trace.plan.scores is not None])
                .float()
                .cpu()
            )
        if all("latent" in trace.plan.extras for trace in traces):
            result.latents[site] = (
                torch.cat([trace.plan.extras["latent"] for trace in traces]).float().cpu()
            )
    return result
