"""Train one model on several ranks: by copies ("ddp") or by shards of its weights ("fsdp").

FSDP2 shards embedding, layers and head. Routers are small, and each rank keeps its own copy, so a
plugin never sees a shard. Gradients of copies are averaged after the backward pass. We do not use
DistributedDataParallel: it looks for unused parameters in the outputs of the model, and the losses
of a router are made from its traces.
"""

from collections.abc import Iterable
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bench.backbone.decoder import Decoder
from bench.backbone.passes import Pass
from bench.backbone.sites import PathSet
from bench.flops.ledger import Counts
from bench.ranks import world

Parallel = Literal["none", "ddp", "fsdp"]


def spread(decoder: Decoder, parallel: Parallel, device: torch.device) -> None:
    """Put a decoder on the devices of all ranks, with its weights in place.

    Args:
        decoder: the decoder on the CPU.
        parallel: "fsdp" to shard the weights, else a copy on each device.
        device: device of this rank.
    """
    if parallel == "fsdp" and world().size > 1:
        _shard(decoder, device)
    decoder.to(device)


def _shard(decoder: Decoder, device: torch.device) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (world().size,))
    copied = {p for router in decoder.routers for p in router.parameters()}
    # A path that rested on one rank would leave the others waiting for its gradient.
    for module in decoder.modules():
        if isinstance(module, PathSet):
            module.run_idle = True
    # Embedding and head are modules of their own, because a fork starts between them.
    for module in (decoder.embedding, *decoder.layers, decoder.head, decoder):
        fully_shard(module, mesh=mesh, shard_placement_fn=_placement, ignored_params=copied)
        _hide_passes(module)


class _Hidden:
    """A pass in a box. FSDP2 would copy a dataclass, and the traces in it would be lost."""

    def __init__(self, run: Pass) -> None:
        self.run = run


def _hide_passes(module: nn.Module) -> None:
    """Hide the pass among the arguments of a sharded module from the hooks of FSDP2."""

    def hide(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(_Hidden(value) if isinstance(value, Pass) else value for value in args)

    def show(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(value.run if isinstance(value, _Hidden) else value for value in args)

    # The first hook runs before the hook of FSDP2, the second after it.
    module.register_forward_pre_hook(hide, prepend=True)
    module.register_forward_pre_hook(show)


def _placement(parameter: nn.Parameter) -> Any:
    """Return the first axis that divides evenly, so whole experts of a bank if possible."""
    from torch.distributed.tensor import Shard

    even = (axis for axis, length in enumerate(parameter.shape) if length % world().size == 0)
    return Shard(next(even, 0))


def is_shard(value: Any) -> bool:
    """Return whether a tensor is a shard of a larger one."""
    return hasattr(value, "full_tensor")


def full(value: Tensor) -> Tensor:
    """Return the tensor of all shards. All ranks must call it."""
    return cast(Any, value).full_tensor() if is_shard(value) else value


def shard_like(value: Tensor, like: Tensor) -> Tensor:
    """Return this rank's shard of a full tensor, as another tensor is sharded."""
    if not is_shard(like):
        return value
    from torch.distributed.tensor import DTensor, Replicate

    target = cast(Any, like)
    local = value.to(like.device)
    return DTensor.from_local(local, target.device_mesh, [Replicate()]).redistribute(
        placements=target.placements
    )


def matrices(value: Tensor) -> Tensor:
    """Return matrices in full: those of this rank if each rank holds whole ones, else all."""
    return cast(Any, value).to_local() if _holds_matrices(value) else full(value)


def add_matrices(parameter: nn.Parameter, update: Tensor, factor: float) -> None:
    """Add an update of the matrices that `matrices` returns, times a factor."""
    if _holds_matrices(parameter):
        local = cast(Any, parameter).to_local()
        local.add_(update.view_as(local), alpha=factor)
    else:
        parameter.add_(shard_like(update.view(parameter.shape), parameter), alpha=factor)


def _holds_matrices(value: Tensor) -> bool:
    """Return whether a tensor is a stack of matrices that is sharded between matrices."""
    return is_shard(value) and value.dim() > 2 and cast(Any, value).placements[0].is_shard(0)


def whole_state(state: Any) -> Any:
    """Return nested state with all shards joined, for a checkpoint."""
    if isinstance(state, dict):
        return {name: whole_state(part) for name, part in cast(dict[Any, Any], state).items()}
    if isinstance(state, list):
        return [whole_state(part) for part in cast(list[Any], state)]
    return full(state).cpu() if is_shard(state) else state


def load_weights(model: nn.Module, weights: dict[str, Any]) -> None:
    """Load the weights of a checkpoint into a model, which may be sharded."""
    own = model.state_dict()
    model.load_state_dict(
        {
            name: shard_like(value, own[name]) if name in own else value
            for name, value in weights.items()
        }
    )


def load_optimiser(optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load the state of an optimiser, whose parameters may be shards."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    parts = {
        index: {
            name: shard_like(value, parameters[index])
            if isinstance(value, Tensor) and value.shape == parameters[index].shape
            else value
            for name, value in part.items()
        }
        for index, part in state["state"].items()
    }
    optimiser.load_state_dict({**state, "state": parts})


@torch.no_grad()
def average(parameters: Iterable[nn.Parameter]) -> None:
    """Average the gradients of copies over ranks. FSDP2 averages those of shards itself.

    A parameter that no rank used keeps no gradient, as in one process.
    """
    size = world().size
    copies = [p for p in parameters if p.requires_grad and not is_shard(p)]
    if size == 1 or not copies:
        return
    # All gradients go in one message, with a flag for each that says whether this rank has it.
    flat = torch.cat(
        [(torch.zeros_like(p) if p.grad is None else p.grad).float().flatten() for p in copies]
        + [torch.tensor([float(p.grad is not None) for p in copies], device=copies[0].device)]
    )
    dist.all_reduce(flat)
    *gradients, used = flat.split([*(p.numel() for p in copies), len(copies)])
    for parameter, gradient, found in zip(copies, gradients, used.tolist(), strict=True):
        if found:
            parameter.grad = (gradient / size).view_as(parameter).to(parameter.dtype)


def forget_idle(decoder: Decoder, counts: list[Counts]) -> None:
    """Remove the gradients of paths that took no token of the whole batch, as in one process.

    A sharded path runs on every rank, also without tokens, because its gradients are averaged.

    Args:
        decoder: the decoder after a backward pass.
        counts: for each site, tokens of each sequence of the whole batch on each path.
    """
    sites = {id(layer.ffn_router): layer.ffn for layer in cast(Any, decoder.layers)}
    for router, taken in zip(decoder.routers, counts, strict=True):
        paths = sites.get(id(router))
        if not isinstance(paths, PathSet) or not paths.run_idle or paths.is_bank:
            continue
        for part, names in paths.parts().items():
            if not any(taken[:, paths.names.index(name)].any() for name in names):
                for parameter in part.parameters():
                    parameter.grad = None
