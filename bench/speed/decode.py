"""Measure decoding: tokens per second, bytes of caches and FLOPs of models side by side.

Models take turns within a repeat, so that a change of the machine's speed meets all of them.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

import torch
from jaxtyping import Int
from torch import Tensor

from bench.backbone.passes import autocast
from bench.decoding.decode import Decoding
from bench.model.assemble import Model
from bench.record.speed import DecodeSpeed
from bench.speed.timing import wait_for

BATCHES = (1, 8, 64)
"""Batch sizes of a measurement."""


def measure_decode(
    models: Mapping[str, Model],
    text: Int[Tensor, "row seq"],
    prompt: int,
    tags: Int[Tensor, "row seq"] | None = None,
    batches: Sequence[int] = BATCHES,
    repeats: int = 5,
    dtype: torch.dtype = torch.float32,
    clock: Callable[[], float] | None = None,
) -> list[DecodeSpeed]:
    """Decode the same text with each model, and return a row per batch size and model.

    The text is given, so that all models decode equally many tokens. Only steps are timed, and not
    the pass over the prompt.

    Args:
        models: name -> model with its knobs set, all on one device.
        text: at least one sequence on this device; rows are repeated where a batch has more.
        prompt: number of tokens of the prompt; the rest is decoded.
        tags: domains of the tokens.
        batches: batch sizes.
        repeats: timed decodings of each model, after a warm-up.
        dtype: precision of matrix products.
        clock: returns the time in seconds; by default processor time on a CPU.
    """
    if clock is None:
        clock = time.process_time if text.device.type == "cpu" else time.perf_counter
    rows: list[DecodeSpeed] = []
    for batch in batches:
        index = torch.arange(batch, device=text.device) % len(text)
        tokens, domains = text[index], None if tags is None else tags[index]
        seconds: dict[str, list[float]] = {name: [] for name in models}
        # The first decoding warms up, and its work is counted.
        counted = {
            name: _counted(name, model, tokens, domains, prompt, dtype)
            for name, model in models.items()
        }
        for _ in range(repeats):
            for name, model in models.items():
                decoding = _begun(model, tokens, domains, prompt, dtype)
                seconds[name].append(_timed(decoding, tokens, domains, dtype, clock))
        number = batch * (text.shape[1] - prompt)
        rows += [_row(counted[name], seconds[name], number) for name in models]
    return rows


def _begun(
    model: Model, tokens: Tensor, tags: Tensor | None, prompt: int, dtype: torch.dtype
) -> Decoding:
    with autocast(tokens.device, dtype):
        return Decoding(
            model.decoder, tokens[:, :prompt], None if tags is None else tags[:, :prompt]
        )


def _steps(decoding: Decoding, tokens: Tensor, tags: Tensor | None) -> Callable[[int], None]:
    """Return a function that decodes the token at a place."""

    def step(place: int) -> None:
        decoding.step(tokens[:, place], None if tags is None else tags[:, place])

    return step


def _counted(
    name: str, model: Model, tokens: Tensor, tags: Tensor | None, prompt: int, dtype: torch.dtype
) -> DecodeSpeed:
    """Decode once, and return the row without its speed."""
    decoding = _begun(model, tokens, tags, prompt, dtype)
    step, flops = _steps(decoding, tokens, tags), 0.0
    with autocast(tokens.device, dtype):
        for place in range(prompt, tokens.shape[1]):
            step(place)
            # The price depends on the paths of each token, so it is summed step by step.
            flops += decoding.price(model.evaluation_ledger)
    batch = len(tokens)
    return DecodeSpeed(
        row=name,
        batch=batch,
        tokens_per_second=0.0,
        spread=0.0,
        flops=flops / (batch * (tokens.shape[1] - prompt)),
        cache_bytes=sum(cache.size for cache in decoding.caches) / batch,
        reserved_bytes=sum(cache.reserved for cache in decoding.caches) / batch,
        router_bytes=sum(prefix.size for prefix in decoding.prefixes.values()) / batch,
    )


def _timed(
    decoding: Decoding,
    tokens: Tensor,
    tags: Tensor | None,
    dtype: torch.dtype,
    clock: Callable[[], float],
) -> float:
    """Return the seconds of all steps."""
    step, start, device = _steps(decoding, tokens, tags), decoding.tokens.shape[1], tokens.device
    wait_for(device)
    begin = clock()
    with autocast(device, dtype):
        for place in range(start, tokens.shape[1]):
            step(place)
    wait_for(device)
    return clock() - begin


def _row(counted: DecodeSpeed, seconds: Sequence[float], number: int) -> DecodeSpeed:
    """Fill in the speed of a row."""
    middle, ordered = median(seconds), sorted(seconds)
    quarter = len(ordered) // 4
    spread = (ordered[len(ordered) - 1 - quarter] - ordered[quarter]) / 2 / middle
    return counted.model_copy(update={"tokens_per_second": number / middle, "spread": spread})
