"""How long inference takes on this machine.

Wall-clock, so it is reported beside the FLOPs and never ranks a row.
"""

import numpy as np
import torch
from torch.utils.benchmark import Timer

from bench.backbone.decoder import device_of
from bench.backbone.passes import autocast, make_pass
from bench.data import Windows
from bench.evaluation.evaluate import window_tensors
from bench.model.assemble import Model
from bench.record import Speed

WINDOWS = 16
"""Windows in the batch that is timed."""

LEAST_SECONDS = 0.8
"""The pass is repeated for at least this long, so that the median stands on many passes where they
are short.
"""


@torch.no_grad()
def measure_speed(
    model: Model,
    windows: Windows,
    dtype: torch.dtype = torch.float32,
    least_seconds: float = LEAST_SECONDS,
) -> Speed:
    """Median time of the causal forward pass of the model, routers and all, at the knobs it has.

    Args:
        model: the model.
        windows: the batch is spread evenly over these, and so over their domains.
        dtype: precision of matrix products.
        least_seconds: repeat for at least this long, after a warm-up.
    """
    device = device_of(model.decoder)
    tokens, tags = window_tensors(windows, device)
    chosen = torch.from_numpy(
        np.linspace(0, len(tokens) - 1, min(WINDOWS, len(tokens))).round().astype(np.int64)
    ).to(device)
    tokens, tags = tokens[chosen, :-1], tags[chosen]

    def forward() -> None:
        with autocast(device, dtype):
            model.decoder(make_pass(tokens, tags))

    timer = Timer("forward()", globals={"forward": forward}, num_threads=torch.get_num_threads())
    measured = timer.blocked_autorange(min_run_time=least_seconds)
    repeats = len(measured.times) * measured.number_per_run
    return Speed(
        forward_us_per_token=measured.median * 1e6 / tokens.numel(),
        tokens=tokens.numel(),
        repeats=repeats,
    )
