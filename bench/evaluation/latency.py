"""Measure the time of inference on this machine.

Wall-clock time is reported with the FLOPs and never ranks a row.
"""

import numpy as np
import torch
from torch.utils.benchmark import Timer

from bench.backbone.decoder import device_of
from bench.backbone.passes import autocast, make_pass
from bench.data import Windows
from bench.evaluation.evaluate import window_tensors
from bench.model.assemble import Model
from bench.ranks import world
from bench.record import Speed

WINDOWS = 16
"""Windows in the timed batch."""

LEAST_SECONDS = 0.8
"""Repeat the pass for at least this long, so that the median of short passes has many of them."""

REPEATS = 20
"""Number of passes on several ranks."""


@torch.no_grad()
def measure_speed(
    model: Model,
    windows: Windows,
    dtype: torch.dtype = torch.float32,
) -> Speed:
    """Measure the median time of the causal forward pass with its routers, at the present knobs.

    Args:
        model: the model.
        windows: the batch is taken evenly from these, and so from all domains.
        dtype: precision of matrix products.
    """
    device = device_of(model.decoder)
    tokens, tags = window_tensors(windows, device)
    # Windows are ordered by domain, so even steps take some of each.
    chosen = torch.from_numpy(
        np.linspace(0, len(tokens) - 1, min(WINDOWS, len(tokens))).round().astype(np.int64)
    ).to(device)
    tokens, tags = tokens[chosen, :-1], tags[chosen]

    def forward() -> None:
        with autocast(device, dtype):
            model.decoder(make_pass(tokens, tags))

    timer = Timer("forward()", globals={"forward": forward}, num_threads=torch.get_num_threads())
    # The timer warms up first, and waits for the device after each pass.
    # Ranks must repeat equally often, because the forward pass of shards needs all of them.
    measured = (
        timer.blocked_autorange(min_run_time=LEAST_SECONDS)
        if world().size == 1
        else timer.timeit(REPEATS)
    )
    repeats = len(measured.times) * measured.number_per_run
    return Speed(
        forward_us_per_token=measured.median * 1e6 / tokens.numel(),
        tokens=tokens.numel(),
        repeats=repeats,
    )
