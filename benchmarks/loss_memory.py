"""Compare memory and time of the loss with those of PyTorch's, at a large vocabulary.

    python benchmarks/loss_memory.py --tokens 4096 --vocabulary 50257

Each loss and its backward pass run in a process of their own, from the same logits in bfloat16.
Memory is the peak of the process above the logits, as a multiple of their size in bfloat16.
"""

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from tabulate import tabulate
from torch import Tensor

from bench.backbone.token_losses import token_losses
from bench.runner.provenance import THREADS


def pytorch(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the losses of PyTorch, from a copy of the logits in float32."""
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "F.cross_entropy": pytorch,
    "bench.backbone.token_losses": token_losses,
}


def cost(name: str, tokens: int, vocabulary: int) -> tuple[str, float, float]:
    """Return the name, the memory in sizes of the logits, and the processor time in seconds."""
    torch.set_num_threads(THREADS)
    logits = torch.randn(1, tokens, vocabulary, dtype=torch.bfloat16).requires_grad_()
    targets = torch.randint(vocabulary, (1, tokens))
    # KiB on Linux. The draw above is in place, so its peak is what is in use now.
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    LOSSES[name](logits, targets).mean().backward()
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return name, peak * 1024 / (logits.numel() * logits.element_size()), seconds


def main() -> None:
    """Run both losses and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--vocabulary", type=int, default=50257)
    given = parser.parse_args()
    lines = []
    for name in LOSSES:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            lines.append(pool.apply(cost, (name, given.tokens, given.vocabulary)))
    print(tabulate(lines, ("loss", "memory / logits", "seconds"), "github", floatfmt=".1f"))


if __name__ == "__main__":
    main()
