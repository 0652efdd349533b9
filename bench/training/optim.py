"""Optimise the backbone's matrices by Muon. AdamW optimises all other parameters.

Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) replaces the momentum of each matrix by
its nearest semi-orthogonal matrix. On the tiny preset it reaches a loss in a third of the tokens of
AdamW. Only this makes effects larger than seed noise at this size. We do not use
`torch.optim.Muon`: it iterates in bfloat16, which costs more than the whole training step on a CPU,
and it takes two-dimensional parameters only, so AdamW would have to train stacked experts.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bench.backbone.decoder import Decoder, Layer
from bench.backbone.memory import PairMemory
from bench.backbone.sites import is_block
from bench.config.recipe import TrainConfig
from bench.training.parallel import add_matrices, full, is_shard, matrices

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalise(
    matrices: Float[Tensor, "count rows columns"], steps: int = 5, low: bool = False
) -> Float[Tensor, "count rows columns"]:
    """Approximate U V^T of each matrix U S V^T by a quintic Newton-Schulz iteration.

    Singular values end between about 0.7 and 1.2.

    Args:
        matrices: the matrices, all of one shape.
        steps: number of iterations.
        low: iterate in bfloat16, as on CUDA, and not in float32.
    """
    x = matrices.bfloat16() if matrices.is_cuda or low else matrices.float()
    # The Gram matrix is smaller for a wide matrix, so a tall one is transposed.
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    # The iteration converges for singular values up to 1, and the norm bounds them.
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    a, b, c = _COEFFICIENTS
    for _ in range(steps):
        gram = x @ x.mT
        if low:
            # The product adds a * x itself, which saves two passes over x and a rounding.
            polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
            x = torch.baddbmm(x, polynomial, x, beta=a)
        else:
            x = a * x + torch.baddbmm(b * gram, gram, gram, alpha=c) @ x
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Update parameters by their orthogonalised momentum.

    A parameter has two or more dimensions; the leading ones are a stack of matrices. All matrices
    of one shape in the model are iterated together.

    Args:
        parameters: parameters to train; there may be none.
        lr: step for a square matrix; scaled by sqrt(max(1, rows / columns)).
        momentum: factor of the Nesterov average.
        low: iterate in bfloat16; see `orthogonalise`.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        low: bool = False,
    ) -> None:
        self.low = low
        super().__init__([{"params": list(parameters)}], {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            by_shape: defaultdict[tuple[int, ...], list[nn.Parameter]] = defaultdict(list)
            for index, parameter in enumerate(group["params"]):
                if parameter.grad is not None:
                    # A shard is iterated alone, so that one gradient at a time is whole.
                    alone = (index,) if is_shard(parameter) else ()
                    by_shape[(*parameter.shape[-2:], *alone)].append(parameter)
            for (rows, columns, *_), parameters in by_shape.items():
                # Stack all matrices of one shape, iterate once, and split the result again.
                parts = [
                    matrices(self._momentum(p, group["momentum"])).reshape(-1, rows, columns)
                    for p in parameters
                ]
                updates = orthogonalise(torch.cat(parts), low=self.low)
                updates = updates.split([len(part) for part in parts])
                scale = -group["lr"] * max(1.0, rows / columns) ** 0.5
                for parameter, update in zip(parameters, updates, strict=True):
                    add_matrices(parameter, update, scale)

    def _momentum(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        gradient = parameter.grad
        assert gradient is not None
        state = self.state[parameter]
        if "average" not in state:
            state["average"] = torch.zeros_like(gradient)
        average = state["average"]
        average.lerp_(gradient, 1 - momentum)
        return gradient.lerp(average, momentum)


def make_optimisers(
    decoder: Decoder, config: TrainConfig, lr_scale: float
) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices, and AdamW for all other parameters that are trained.

    AdamW has two groups: embedding and head, and the routers with their own rate.

    Args:
        decoder: the model.
        config: the recipe.
        lr_scale: factor on every learning rate.
    """
    by_muon = [p for p in muon_parameters(decoder, decoder.routers) if p.requires_grad]
    routers = [p for router in decoder.routers for p in router.parameters()]
    # Muon and the group of routers take theirs; all that is left has one rate.
    taken = {id(p) for p in (*by_muon, *routers)}
    rest = [p for p in decoder.parameters() if p.requires_grad and id(p) not in taken]
    rate, own = config.adam_lr * lr_scale, config.router
    groups: list[dict[str, Any]] = [{"params": rest, "lr": rate}]
    if routers:
        own_rate = rate * own.lr_ratio
        groups.append({"params": routers, "lr": own_rate, "weight_decay": own.weight_decay})
    return [
        Muon(by_muon, config.muon_lr * lr_scale, low=config.muon_dtype == "bfloat16"),
        torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0, fused=False, foreach=True),
    ]


def muon_parameters(decoder: nn.Module, routers: Iterable[nn.Module]) -> list[nn.Parameter]:
    """Return the matrices of layers and paths. AdamW trains tables, head and routers."""
    # Routers and memories are submodules of the layers, so their parameters are taken out.
    layers = decoder.get_submodule("layers")
    memories = (module for module in layers.modules() if isinstance(module, PairMemory))
    others = {id(p) for module in (*routers, *memories) for p in module.parameters()}
    return [p for p in layers.parameters() if p.dim() >= 2 and id(p) not in others]


def newton_schulz_flops(parameters: Iterable[nn.Parameter], steps: int = 5) -> float:
    """Return the FLOPs of one Muon step.

    Records show them, but nobody is charged: they scale with parameters, not with routing.
    """
    total = 0.0
    for parameter in parameters:
        # A step makes three products: the Gram matrix, its square, and their polynomial times x.
        short, long = sorted(parameter.shape[-2:])
        total += (
            steps
            * (4.0 * short * short * long + 2.0 * short**3)
            * parameter.numel()
            / (short * long)
        )
    return total


def trapezoid(progress: float, warmup: float, decay: float) -> float:
    """Return the factor on the learning rate: linear up, flat, linear down to zero.

    Args:
        progress: spent share of the training budget, 0 to 1.
        warmup: share over which the factor rises.
        decay: share at the end over which the factor falls.
    """
    rise = min(1.0, progress / warmup) if warmup > 0 else 1.0
    fall = min(1.0, (1.0 - progress) / decay) if decay > 0 else 1.0
    return max(0.0, min(rise, fall))


@torch.no_grad()
def gradient_norms(decoder: Decoder) -> Float[Tensor, "site 2"]:
    """Return the gradient norms of each routed site's router and paths, in the order of traces.

    A block's path is its attention and its FFN. A module without trained parameters has norm 0.
    The norms stay on the device.
    """
    norms: list[Tensor] = []
    for layer in decoder.layers:
        assert isinstance(layer, Layer)
        for router in (layer.ffn_router, layer.block_router):
            if router is not None:
                paths = (layer.attention, layer.ffn) if is_block(router) else (layer.ffn,)
                norms += [_norm(decoder, router), _norm(decoder, *paths)]
    return torch.stack(norms).view(-1, 2) if norms else torch.zeros(0, 2)


def _norm(decoder: Decoder, *modules: nn.Module) -> Tensor:
    gradients = [
        parameter.grad
        for module in modules
        for parameter in module.parameters()
        if parameter.grad is not None
    ]
    if not gradients:
        return torch.zeros((), device=decoder.head.weight.device)
    return full(nn.utils.get_total_norm(gradients))
