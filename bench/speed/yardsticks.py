"""Measure the yardsticks of the rows: peaks of this machine, and other expert layers."""

import importlib
import statistics
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from bench.backbone.decoder import DecoderConfig
from bench.backbone.dispatch import dispatch_paths
from bench.backbone.passes import autocast
from bench.backbone.paths import ExpertBank
from bench.backbone.sites import PathSet
from bench.record.speed import Yardstick
from bench.rng import generator, normal
from bench.routing.contract import RoutingPlan
from bench.routing.paths import experts
from bench.speed.timing import alternate, relative

COUNT, ACTIVE = 8, 2
"""Experts of the layers that are compared, and the number that each token takes."""
SIDE = {"cpu": 1024, "cuda": 8192}
"""Rows and columns of the products that measure the peak, on each kind of device."""
DENSE = "dense FFN of equal FLOPs"
TRANSFORMERS = {
    "experts of Transformers": "eager",
    "experts of Transformers, grouped": "grouped_mm",
}
"""Yardstick -> its implementation. The default of Transformers is `grouped_mm`."""


def peaks(rounds: int, device: torch.device) -> list[Yardstick]:
    """Return the largest speed of square matrix products in float32 and in bfloat16."""
    side = SIDE.get(device.type, 1024)
    noise = generator(0, "peak")
    drawn = torch.randn(side, side, generator=noise).to(device)

    def product(dtype: torch.dtype) -> Callable[[], object]:
        matrix = drawn.to(dtype)
        return lambda: matrix @ matrix

    precisions = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    works = {name: product(dtype) for name, dtype in precisions.items()}
    seconds = alternate(works, rounds, device)
    # The fastest product is the peak; the others were disturbed.
    return [
        Yardstick(
            name=f"matrix products, {name}", value=2e-9 * side**3 / min(found), unit="GFLOP/s"
        )
        for name, found in seconds.items()
    ]


def expert_layers(
    config: DecoderConfig, tokens: int, dtype: torch.dtype, rounds: int, device: torch.device
) -> list[Yardstick]:
    """Return the time of expert layers, forward and backward, relative to a dense FFN.

    All run two of eight experts for each token, on the same choices. Together the two are as wide
    as the FFN of the decoder.
    """
    width, noise = config.ffn_width // ACTIVE, generator(0, "experts")
    x = torch.randn(1, tokens, config.d_model, generator=noise).to(device)
    weight = torch.randn(1, tokens, COUNT, generator=noise).softmax(-1).to(device)
    chosen = weight.topk(ACTIVE).indices
    mask = torch.zeros_like(weight, dtype=torch.bool).scatter(2, chosen, True)
    paths = PathSet(experts(COUNT), config.d_model, 0, 0, width)
    paths.bank = _bank(config.d_model, width, COUNT)
    dense = _bank(config.d_model, config.ffn_width, 1)
    for module in (paths, dense):
        module.to(device)
    layers: dict[str, Callable[[Tensor], Tensor]] = {
        DENSE: dense,
        "dispatch of this bench": lambda x: dispatch_paths(x, RoutingPlan(mask, weight), paths)[0],
        "loop over experts": lambda x: _loop(x, mask, weight, paths.bank),
    }
    index, factor = chosen[0], weight[0].gather(1, chosen[0])
    for name, implementation in TRANSFORMERS.items():
        if (block := transformers_experts(paths.bank, implementation)) is not None:
            block.to(device)
            layers[name] = lambda x, block=block: block(x[0], index, factor)
    # All layers get the same input and the same choices.
    works = {name: _both_ways(layer, x, dtype) for name, layer in layers.items()}
    seconds = alternate(works, rounds, device)
    return [
        Yardstick(name=name, value=relative(found, seconds[DENSE]), unit=f"times {DENSE}")
        for name, found in seconds.items()
        if name != DENSE
    ]


def _both_ways(
    layer: Callable[[Tensor], Tensor], x: Tensor, dtype: torch.dtype
) -> Callable[[], None]:
    """Return a function that runs a layer forward and backward."""
    # The input needs a gradient, as it does inside a model.
    given = x.clone().requires_grad_()

    def work() -> None:
        with autocast(x.device, dtype):
            out = layer(given)
        out.float().square().sum().backward()

    return work


def transformers_experts(bank: ExpertBank, implementation: str) -> nn.Module | None:
    """Return the experts of Mixtral with the weights of a bank; None without Transformers.

    Args:
        bank: the weights.
        implementation: `eager`, a loop over experts, or `grouped_mm`.
    """
    try:
        mixtral: Any = importlib.import_module("transformers.models.mixtral.modeling_mixtral")
    except ImportError:
        return None
    config = SimpleNamespace(
        num_local_experts=bank.count,
        hidden_size=bank.d_model,
        intermediate_size=bank.width,
        hidden_act="silu",
        _experts_implementation=implementation,
    )
    block: Any = mixtral.MixtralExperts(config)
    block.gate_up_proj.data.copy_(torch.cat((bank.gate, bank.up), 1))
    block.down_proj.data.copy_(bank.down)
    return block


def rates(milliseconds: float, flops: float, plain_ratio: float, peak: float) -> list[Yardstick]:
    """Return the speed of the dense step, its share of the peak, and the harness's overhead.

    Args:
        milliseconds: median time of a step.
        flops: training FLOPs of a step, without the optimiser.
        plain_ratio: time of the plain loop divided by the time of the dense row.
        peak: GFLOP/s of matrix products in the precision of the step.
    """
    speed = flops / milliseconds * 1e-6
    return [
        Yardstick(name="dense step", value=speed, unit="GFLOP/s"),
        Yardstick(name="dense step", value=speed / peak, unit="of the peak"),
        Yardstick(name="dense step", value=1 / plain_ratio, unit="times a plain loop"),
    ]


def median_ms(seconds: list[float]) -> float:
    """Return the median in milliseconds."""
    return 1e3 * statistics.median(seconds)


def _bank(d_model: int, width: int, count: int) -> ExpertBank:
    made = ExpertBank(d_model, width, count)
    made.reset(lambda name, rows, columns: normal(0, name, rows, columns))
    # Zeros, as at the start of a training, would let the backward pass multiply zeros.
    made.down.data.normal_(std=width**-0.5, generator=generator(0, "down"))
    return made


def _loop(x: Tensor, mask: Tensor, weight: Tensor, bank: ExpertBank) -> Tensor:
    """Run experts one by one, as plain code does."""
    out = torch.zeros_like(x[0])
    for expert in range(bank.count):
        index = mask[0, :, expert].nonzero().squeeze(1)
        update = bank(x[0, index], expert) * weight[0, index, expert].unsqueeze(1)
        out = out.index_add(0, index, update.to(out.dtype))
    return out
