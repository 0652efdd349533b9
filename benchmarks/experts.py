"""Time experts by dispatch, experts by a plain loop, and a dense FFN of equal FLOPs.

Forward and backward passes of the three alternate in one run. d = 256, 8 experts of width 512,
top-2, 4096 tokens. `python benchmarks/experts.py --threads 2`.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from bench.backbone.dispatch import dispatch_paths
from bench.backbone.paths import ExpertBank
from bench.backbone.sites import PathSet
from bench.rng import generator, normal
from bench.routing.contract import RoutingPlan
from bench.routing.paths import experts

D, WIDTH, COUNT, ACTIVE, TOKENS = 256, 512, 8, 2, 4096


def bank(width: int, count: int) -> ExpertBank:
    made = ExpertBank(D, width, count)
    made.reset(lambda name, rows, columns: normal(0, name, rows, columns))
    made.down.data.normal_(std=width**-0.5, generator=generator(0, "down"))
    return made


def ways() -> dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]]:
    """Name -> (tokens `[1, token, d]`, mask, weight) -> update."""
    paths = PathSet(experts(COUNT), D, 0, 0, WIDTH)
    paths.bank = bank(WIDTH, COUNT)
    dense = bank(ACTIVE * WIDTH, 1)

    def loop(x: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
        out = torch.zeros_like(x[0])
        for expert in range(COUNT):
            index = mask[0, :, expert].nonzero().squeeze(1)
            out = out.index_add(
                0, index, paths.bank(x[0, index], expert) * weight[0, index, expert].unsqueeze(1)
            )
        return out

    return {
        "dense of equal FLOPs": lambda x, mask, weight: dense(x[0]),
        "loop over experts": loop,
        "dispatch": lambda x, mask, weight: dispatch_paths(x, RoutingPlan(mask, weight), paths)[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    clock = (
        time.process_time if arguments.threads == 1 else time.perf_counter
    )  # what others do to the machine matters less
    noise = generator(0, "benchmark")
    x = torch.randn(1, TOKENS, D, generator=noise, requires_grad=True)
    weight = torch.randn(1, TOKENS, COUNT, generator=noise).softmax(-1)
    mask = torch.zeros_like(weight, dtype=torch.bool).scatter(2, weight.topk(ACTIVE).indices, True)
    timed, seconds = ways(), dict[str, list[float]]()
    for count in range(arguments.rounds + 3):
        for name, way in timed.items():
            started = clock()
            way(x, mask, weight).square().sum().backward()
            if count >= 3:
                seconds.setdefault(name, []).append(clock() - started)
    for name, found in seconds.items():
        print(f"{name:22} {1e3 * statistics.median(found):7.1f} ms")


if __name__ == "__main__":
    main()
