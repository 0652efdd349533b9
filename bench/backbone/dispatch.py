"""Execute a routing plan: each path runs on its own tokens alone.

A plan with counts runs without waiting for the device. The functions `reference_*` compute the same
by running all paths on all tokens and masking; tests compare the two.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bench.backbone.merge import merge_paths, reference_merge
from bench.backbone.sites import PathSet
from bench.ranks import largest
from bench.routing.contract import RoutingPlan

PathUpdates = dict[str, tuple[Int[Tensor, " token"] | None, Float[Tensor, "token d_model"]]]
Hidden = Float[Tensor, "batch seq d_model"]


def assign(plan: RoutingPlan) -> list[Int[Tensor, " token"] | None]:
    """Return the flat indices of each path's tokens, in order; None for a path with all tokens."""
    batch, seq, _ = plan.mask.shape
    by_path = plan.mask.flatten(0, 1).T  # [path, batch * seq]
    if plan.counts is None:
        sizes: list[int] = by_path.sum(1).tolist()
        token = by_path.nonzero()[:, 1]
    else:
        # With known counts nothing needs to be read back from the device.
        sizes = [batch * count for count in plan.counts]
        if all(size in (0, batch * seq) for size in sizes):
            empty = torch.empty(0, dtype=torch.long, device=plan.mask.device)
            return [None if size else empty for size in sizes]
        token = torch.nonzero_static(by_path, size=sum(sizes))[:, 1]
    return [
        None if size == batch * seq else index
        for size, index in zip(sizes, token.split(sizes), strict=True)
    ]


def dispatch_paths(x: Hidden, plan: RoutingPlan, paths: PathSet) -> tuple[Hidden, PathUpdates]:
    """Send tokens through FFN-like paths and add up the weighted outputs.

    Returns:
        The update `[batch, seq, d_model]`, and the unweighted output of each path with its tokens.
    """
    if plan.merge is not None or paths.segment is not None:
        return merge_paths(x, plan, paths)
    flat = x.flatten(0, 1)
    indices = assign(plan)
    outputs = (
        _run_grouped(flat, indices, paths)
        if _groupable(flat, indices, paths)
        else _run_each(flat, indices, paths)
    )
    weight = None if plan.weight is None else plan.weight.flatten(0, 1)
    # The update starts as None, so that a single path with all tokens needs no extra sum.
    update: Tensor | None = None
    path_updates: PathUpdates = {}
    for path, (index, output) in enumerate(zip(indices, outputs, strict=True)):
        if output is None:
            continue
        path_updates[paths.names[path]] = (index, output)
        update = _combine(update, flat, index, _scale(output, weight, path, index))
    return (torch.zeros_like(flat) if update is None else update).view_as(x), path_updates


def _groupable(flat: Tensor, indices: list[Tensor | None], paths: PathSet) -> bool:
    return (
        flat.is_cuda
        and paths.is_bank
        and len(indices) > 1
        and all(index is not None for index in indices)
    )


def _run_grouped(flat: Tensor, indices: list[Tensor | None], paths: PathSet) -> list[Tensor | None]:
    """Run a bank by grouped products over tokens sorted by expert."""
    parts = [index for index in indices if index is not None]
    sizes = [len(index) for index in parts]
    ends = torch.tensor(sizes, device=flat.device).cumsum(0).to(torch.int32)
    return list(paths.bank.grouped(flat.index_select(0, torch.cat(parts)), ends).split(sizes))


def _run_each(flat: Tensor, indices: list[Tensor | None], paths: PathSet) -> list[Tensor | None]:
    """Run paths one after another. A path without tokens has no output."""
    # A bank takes all parts in one call, which splits its stacked parameters only once.
    if paths.is_bank and len(indices) > 1:
        parts = [flat if index is None else flat.index_select(0, index) for index in indices]
        sizes = [len(part) for part in parts]
        return [
            output if len(output) else None
            for output in paths.bank(torch.cat(parts), sizes=sizes).split(sizes)
        ]
    outputs: list[Tensor | None] = []
    for path, index in enumerate(indices):
        if index is not None and not len(index) and not paths.run_idle:
            outputs.append(None)
        else:
            outputs.append(paths.run(path, flat if index is None else flat.index_select(0, index)))
    return outputs


def _scale(output: Tensor, weight: Tensor | None, path: int, index: Tensor | None) -> Tensor:
    if weight is None:
        return output
    column = weight[:, path]
    return output * (column if index is None else column.index_select(0, index)).unsqueeze(1).to(
        output.dtype
    )


def _combine(update: Tensor | None, flat: Tensor, index: Tensor | None, output: Tensor) -> Tensor:
    if index is None:
        return output if update is None else update + output
    base = torch.zeros_like(flat, dtype=output.dtype) if update is None else update
    return base.index_add(0, index, output)


def reference_paths(x: Hidden, plan: RoutingPlan, paths: PathSet) -> tuple[Hidden, PathUpdates]:
    """Compute `dispatch_paths` by running every path on every token."""
    if plan.merge is not None or paths.segment is not None:
        return reference_merge(x, plan, paths)
    flat, update = x.flatten(0, 1), torch.zeros_like(x.flatten(0, 1))
    path_updates: PathUpdates = {}
    for path in range(plan.mask.shape[-1]):
        output = paths.run(path, flat)
        if output is None:
            continue
        factor = plan.mask[..., path].flatten().to(output.dtype)
        if plan.weight is not None:
            factor = factor * plan.weight[..., path].flatten()
        path_updates[paths.names[path]] = (None, output)
        update = update + output * factor.unsqueeze(1)
    return update.view_as(x), path_updates


def gather_chosen(
    chosen: Bool[Tensor, "batch seq"], count: int | None
) -> tuple[Int[Tensor, "batch kept"], Bool[Tensor, "batch kept"] | None]:
    """Return the positions of the chosen tokens of each sequence, padded to the longest.

    Padding consists of tokens that were not chosen. It comes last, so causal attention keeps it
    apart.

    Returns:
        The positions, and whether each is real; None if there is no padding.
    """
    # The choice of a router inside a block may depend on the length, which all ranks share.
    kept = largest(int(chosen.sum(1).max())) if count is None else count
    # A stable sort puts the chosen tokens first and keeps the order of both groups.
    index = (~chosen).to(torch.uint8).sort(dim=1, stable=True).indices[:, :kept]
    return index, None if count is not None else chosen.gather(1, index)


def scatter_chosen(
    delta: Float[Tensor, "batch kept d_model"],
    index: Int[Tensor, "batch kept"],
    weight: Float[Tensor, "batch seq"] | None,
    valid: Bool[Tensor, "batch kept"] | None,
    like: Hidden,
) -> Hidden:
    """Put the weighted updates of the chosen tokens back in place. All others get 0."""
    if weight is not None:
        delta = delta * weight.gather(1, index).unsqueeze(-1).to(delta.dtype)
    if valid is not None:
        delta = delta * valid.unsqueeze(-1)
    return torch.zeros_like(like, dtype=delta.dtype).scatter(
        1, index.unsqueeze(-1).expand_as(delta), delta
    )


def chosen_pairs(chosen: Bool[Tensor, "batch seq"]) -> Bool[Tensor, "batch seq seq"]:
    """Mark the causal (query, key) pairs among chosen tokens.

    The other tokens see themselves, which keeps the softmax defined.
    """
    seq = chosen.shape[1]
    causal = torch.ones(seq, seq, dtype=torch.bool, device=chosen.device).tril()
    both = chosen.unsqueeze(1) & chosen.unsqueeze(2)
    return causal & both | torch.eye(seq, dtype=torch.bool, device=chosen.device)
