"""What a plugin could turn for the whole process, and so for the rows of others.

Torch's global settings and hooks.
"""

from typing import Any

import torch
import torch.nn.modules.module as module
import torch.optim.optimizer as optimizer

_HOOKS = {"module hooks": module, "optimiser hooks": optimizer}
"""Where torch keeps the hooks of every module and optimiser, in tables whose names begin with
`_global_`.
"""


def torch_settings() -> dict[str, Any]:
    """Name of each setting -> its value; of hooks, how many there are."""
    found: dict[str, Any] = {
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "number of threads": torch.get_num_threads(),
        "gradient mode": torch.is_grad_enabled(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "float32 matmul precision": torch.get_float32_matmul_precision(),
    }
    for name, where in _HOOKS.items():
        tables = [
            value
            for key, value in vars(where).items()
            if key.startswith("_global_") and isinstance(value, dict)
        ]
        found[name] = sum(len(table) for table in tables)
    return found
