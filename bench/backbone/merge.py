"""Execute a plan that merges experts: one expert per segment, a weighted mean of the bank.

SMEAR (arXiv:2306.03745) merges once per sequence, Lory (arXiv:2405.03133) once per segment.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from bench.backbone.sites import PathSet
from bench.errors import UserError
from bench.routing.contract import RoutingPlan

Merged = tuple[
    Float[Tensor, "batch seq d_model"],
    dict[str, tuple[Int[Tensor, " token"] | None, Float[Tensor, "token d_model"]]],
]


def merge_paths(x: Float[Tensor, "batch seq d_model"], plan: RoutingPlan, paths: PathSet) -> Merged:
    """Merge the bank for each segment of each sequence and run the segment's tokens through it.

    Returns:
        The update `[batch, seq, d_model]`, and the unweighted output under the name "merged".

    Raises:
        UserError: the plan and the paths do not agree on merging, or on the number of segments.
    """
    merge, segment = _agreed(plan, paths)
    # Sequences of a batch have different merged experts, so this is a batched product.
    parts = [
        paths.bank(part, merge=weights)
        for part, weights in zip(x.split(segment, dim=1), merge.unbind(1), strict=True)
    ]
    return _weighted(torch.cat(parts, dim=1), plan)


def reference_merge(
    x: Float[Tensor, "batch seq d_model"], plan: RoutingPlan, paths: PathSet
) -> Merged:
    """Compute `merge_paths` from its definition: mix all experts for each token, by matrix."""
    _, segment = _agreed(plan, paths)
    mix, bank = merge_by_token(plan, segment), paths.bank
    # In this order the products need `batch seq path j` numbers, not a matrix per token.
    gate, up = (torch.einsum("bte,btj,eij->bti", mix, x, rows) for rows in (bank.gate, bank.up))
    return _weighted(torch.einsum("bte,btj,eij->bti", mix, F.silu(gate) * up, bank.down), plan)


def merge_by_token(plan: RoutingPlan, segment: int) -> Float[Tensor, "batch seq path"]:
    """Return the merging weights of each token's segment."""
    assert plan.merge is not None
    return plan.merge.repeat_interleave(segment, dim=1)[:, : plan.mask.shape[1]]


def _agreed(plan: RoutingPlan, paths: PathSet) -> tuple[Float[Tensor, "batch segment path"], int]:
    if plan.merge is None or paths.segment is None:
        found = "plan.merge is None" if plan.merge is None else "paths.segment is None"
        raise UserError(
            f"Merged experts need both plan.merge and a segment, and {found}. Use experts(count, "
            "segment=...) and plan.merge."
        )
    batch, seq, count = plan.mask.shape
    shape = (batch, -(-seq // paths.segment), count)
    if plan.merge.shape != shape:
        raise UserError(
            f"plan.merge has shape {tuple(plan.merge.shape)}; {seq} tokens in segments of "
            f"{paths.segment} need {shape}."
        )
    return plan.merge, paths.segment


def _weighted(output: Float[Tensor, "batch seq d_model"], plan: RoutingPlan) -> Merged:
    # The mask marks one path per token, so the sum is that path's weight.
    factor = plan.mask if plan.weight is None else plan.weight.where(plan.mask, 0.0)
    return output * factor.sum(-1, keepdim=True).to(output.dtype), {
        "merged": (None, output.flatten(0, 1))
    }
