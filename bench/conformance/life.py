"""Run a model once through training and evaluation, and note the traces that this leaves."""

import hashlib
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.errors import let_through
from bench.flops.counter import UncountedOp
from bench.model.assemble import Model

# Attributes that every module has, and types whose content a digest can compare.
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_PLAIN = (int, float, str, Tensor, np.ndarray, list, tuple, dict, set, type(None))


@dataclass(frozen=True)
class Life:
    """Observations of a router that was built, trained, calibrated and evaluated once.

    Attributes:
        error: the error that ended the run early, or None.
        drawn_from: global generators whose state changed.
        changed: attributes of routers that changed and that no state_dict saves.
    """

    error: BaseException | None
    drawn_from: list[str]
    changed: list[str]

    @property
    def uncounted(self) -> UncountedOp | None:
        """The operation without a price that ended the run, or None."""
        error = self.error
        # The harness may have wrapped it in an error of its own.
        while error is not None and not isinstance(error, UncountedOp):
            error = error.__cause__
        return error


def live(make: Callable[[], Model], run: Callable[[Model], None]) -> Life:
    """Make a model and run it. Errors become part of the result."""
    randomness, error = _global_randomness(), None
    before: dict[str, str] = {}
    after: dict[str, str] = {}
    try:
        model = make()
        before = _unsaved(model)
        run(model)
        after = _unsaved(model)
    # Plugins may raise anything, also SystemExit; the check reports it.
    except BaseException as raised:
        let_through(raised)
        error = raised
    # Read after the run: a router that draws from a global generator moves its state.
    now = _global_randomness()
    return Life(
        error,
        [name for name in now if now[name] != randomness[name]],
        sorted(name for name in after if after[name] != before.get(name)),
    )


def content_digest(value: Any) -> str:
    """Return a digest by content of a tensor, an array, or a collection of them."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().contiguous()
        # Compare bytes, so that NaN equals NaN and -0.0 differs from 0.0.
        data = value.view(-1).view(torch.uint8).numpy().tobytes()
        text = f"{value.dtype}{tuple(value.shape)}".encode() + data
    elif isinstance(value, np.ndarray):
        text = f"{value.dtype}{value.shape}".encode() + value.tobytes()
    elif isinstance(value, dict):
        text = "".join(f"{name!r}:{content_digest(part)}" for name, part in value.items()).encode()
    elif isinstance(value, list | tuple):
        text = "".join(map(content_digest, value)).encode()
    else:
        text = repr(value).encode()
    return hashlib.sha256(type(value).__name__.encode() + text).hexdigest()


def _global_randomness() -> dict[str, str]:
    """Digest the state of each global generator.

    Python's own is left out under beartype, which draws from it.
    """
    states: dict[str, Any] = {"torch": torch.get_rng_state(), "NumPy": np.random.get_state()}
    if "beartype" not in sys.modules:
        states["Python"] = random.getstate()
    return {name: content_digest(state) for name, state in states.items()}


def _unsaved(model: Model) -> dict[str, str]:
    """Digest the attributes and buffers of all routers that no state_dict saves.

    Attributes with other objects than numbers, text, tensors and collections are left out.
    """
    found: dict[str, str] = {}
    for router in model.decoder.routers:
        for prefix, module in router.named_modules():
            places = {
                name: value
                for name, value in vars(module).items()
                if name not in _OF_EVERY_MODULE and isinstance(value, _PLAIN)
            }
            # Buffers that are not persistent are lost in a checkpoint, like plain attributes.
            passing = module._non_persistent_buffers_set  # pyright: ignore[reportPrivateUsage]
            places |= {name: module.get_buffer(name) for name in passing}
            where = f"layer {router.spec.layer}: self.{prefix}{'.' if prefix else ''}"
            found |= {where + name: content_digest(value) for name, value in places.items()}
    return found
