"""Set up a process for cells, so that equal cells give equal bits on any machine."""

import torch

from bench.runner.memory import keep_freed_memory
from bench.runner.provenance import THREADS


def fix_numerics(device: str) -> None:
    """Use one thread, deterministic kernels, and the GPU that the device names.

    Events of a GPU are recorded on the present one, which is GPU 0 by default.

    Args:
        device: device of the cells. One without a number leaves the GPU that a rank has chosen.
    """
    torch.set_num_threads(THREADS)
    keep_freed_memory()
    torch.use_deterministic_algorithms(True, warn_only=True)
    if device.startswith("cuda:"):
        torch.cuda.set_device(torch.device(device))
