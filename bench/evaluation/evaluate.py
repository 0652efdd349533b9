"""Evaluate a model causally on fixed windows, at its present knobs."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bench.backbone.decoder import device_of
from bench.backbone.passes import Decide, ask, autocast, make_pass
from bench.backbone.token_losses import token_losses
from bench.data import Windows
from bench.flops.ledger import Counts, Ledger
from bench.model.assemble import Model
from bench.routing.contract import LayerTrace, Selection


@dataclass
class Evaluation:
    """The result of a causal evaluation. Plans are kept on request.

    Attributes:
        nats: loss of each token, `[window, seq]`.
        active: active FLOPs per token.
        executed: executed FLOPs per token: with full-square attention and padding.
        masks: routed site -> masks of its plans, `[window, seq, path]`.
        scores: routed site -> scores of its plans, if they have scores. Scores of a site inside a
            block are those of the tokens in the block, as one window.
        latents: routed site -> predicted updates of the paths, `extras["latent"]`, if its plans
            have them.
        chosen: routed site -> share of all tokens that chose each path.
    """

    nats: Float[np.ndarray, "window seq"]
    active: float
    executed: float
    masks: dict[int, Bool[Tensor, "window seq path"]] = field(default_factory=dict[int, Tensor])
    scores: dict[int, Float[Tensor, "window seq path"]] = field(default_factory=dict[int, Tensor])
    latents: dict[int, Float[Tensor, "window seq path latent"]] = field(
        default_factory=dict[int, Tensor]
    )
    chosen: dict[int, list[float]] = field(default_factory=dict[int, list[float]])


def window_tensors(windows: Windows, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return tokens `[window, seq + 1]` and tags `[window, seq]` as tensors on a device."""
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
    selection: Selection = "causal",
    noise: torch.Generator | None = None,
) -> Evaluation:
    """Evaluate causally on fixed windows, and book the cost.

    Args:
        model: the model with its knobs set.
        windows: the windows.
        batch_size: windows per pass; it changes nothing but speed.
        dtype: precision of matrix products.
        keep: keep plans and scores, for metrics.
        decide: asks a router for a plan; a meter counts here.
        selection: "topk" for the choice of training, which looks ahead.
        noise: routing noise for the choice of training.
    """
    decoder, ledger, device = model.decoder, model.evaluation_ledger, device_of(model.decoder)
    tokens, tags = window_tensors(windows, device)
    nats: list[Tensor] = []
    booked: list[tuple[list[Counts], int]] = []
    kept: list[list[LayerTrace]] = []
    for start in range(0, len(tokens), batch_size):
        # The last token of a window is a target only.
        rows = slice(start, start + batch_size)
        run = make_pass(
            tokens[rows, :-1], tags[rows], decide=decide, selection=selection, generator=noise
        )
        with autocast(device, dtype):
            logits = decoder(run)
        nats.append(token_losses(logits, tokens[rows, 1:]))
        booked.append((run.counts, run.tokens.numel()))
        if keep:
            kept.append(run.traces)
    result = _booked(ledger, torch.cat(nats), booked)
    # There are no traces unless `keep` is set.
    for site, traces in enumerate(zip(*kept, strict=True)):
        _join(result, site, traces, tokens[:, :-1], ledger.sites[site].inside)
    return result


def _booked(
    ledger: Ledger, nats: Float[Tensor, "window seq"], batches: Sequence[tuple[list[Tensor], int]]
) -> Evaluation:
    """Charge the batches of an evaluation, and return its losses with the cost per token.

    A meter may raise a price in any batch. Charging at the end makes all batches pay it.
    """
    active = sum((ledger.active(*batch) for batch in batches), 0.0)
    executed = sum((ledger.executed(*batch, padded=True) for batch in batches), 0.0)
    ledger.charge("evaluation", "forward", active)
    total = nats.numel()
    return Evaluation(nats.double().cpu().numpy(), active / total, executed / total)


def _join(
    result: Evaluation, site: int, traces: Sequence[LayerTrace], tokens: Tensor, inside: bool
) -> None:
    """Add the plans of one site, joined over all batches, to an evaluation."""
    result.masks[site] = torch.cat([_everywhere(trace, tokens) for trace in traces]).cpu()
    counts = torch.stack([trace.plan.chosen.sum((0, 1)) for trace in traces]).sum(0)
    result.chosen[site] = (counts.double() / tokens.numel()).tolist()
    scores = [trace.plan.scores for trace in traces]
    latents = [trace.plan.extras.get("latent") for trace in traces]
    for kind, values in ((result.scores, scores), (result.latents, latents)):
        found = [value for value in values if value is not None]
        if len(found) == len(traces):
            seen = map(_of_block, found, traces) if inside else found
            joined = torch.cat([*seen], dim=int(inside)).float().cpu()
            kind |= {site: joined} if joined.numel() else {}


def _everywhere(trace: LayerTrace, tokens: Tensor) -> Bool[Tensor, "window seq path"]:
    """Return the mask of a trace for whole sequences; tokens outside the block take no path."""
    mask, seq = trace.plan.mask, tokens.shape[1]
    if mask.shape[1] == seq:
        return mask
    index = trace.inputs.positions.unsqueeze(-1).expand_as(mask)
    return mask.new_zeros(len(mask), seq, mask.shape[2]).scatter(1, index, mask)


def _of_block(
    values: Float[Tensor, "window kept *rest"], trace: LayerTrace
) -> Float[Tensor, "1 token *rest"]:
    """Return the values of the tokens in the block, as one window."""
    valid = trace.inputs.valid
    return (values.flatten(0, 1) if valid is None else values[valid]).unsqueeze(0)
