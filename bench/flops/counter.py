"""A FLOP counter without blind spots: every operation has a price, is known to be free, or is an error.

`torch.utils.flop_counter` prices some operations and silently takes all others for nothing: matrix-vector
products, grouped products, `(x * w).sum()`, LSTMs, custom operations. Here matrix products cost 2mnk,
floating-point elementwise work and reductions cost one FLOP an element, moving data is free, and an operation
that is on none of these lists is refused.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from bench.flops.operations import FREE, MATRIX, PER_ELEMENT


class UncountedOp(Exception):
    """An operation whose cost is unknown was run where costs are counted."""


class OpCounter(TorchDispatchMode):
    """Counts what runs inside the `with` block on this thread.

    Attributes:
        matrix: FLOPs of products, 2mnk each.
        elementwise: floating-point elements computed by everything else that has a price.
        calls: operation name -> number of calls.
    """

    def __init__(self) -> None:
        super().__init__()
        self.matrix = 0.0
        self.elementwise = 0.0
        self.calls: Counter[str] = Counter()

    @property
    def total(self) -> float:
        """Matrix and elementwise FLOPs together: what a router is charged."""
        return self.matrix + self.elementwise

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Run the operation and charge it."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if not isinstance(func, OpOverload):
            raise UncountedOp(f"Operation {func} has no known cost.")
        name = func.name().partition(".")[0].removeprefix("aten::")
        self.calls[name] += 1
        if name in MATRIX:
            self.matrix += MATRIX[name](*args, **kwargs)
        elif name in PER_ELEMENT or torch.Tag.pointwise in func.tags:
            self.elementwise += _largest_float(args, out)
        elif not (name in FREE or func.is_view or name.startswith("sym_") or func.namespace == "prim"):
            shapes = [tuple(a.shape) for a in args if isinstance(a, Tensor)]
            raise UncountedOp(f"Operation {func.name()} on shapes {shapes} has no known cost: use operations that the counter can price.")
        return out


def _largest_float(args: tuple[Any, ...], out: Any) -> float:
    tensors = [t for t in (*args, *(out if isinstance(out, (tuple, list)) else (out,))) if isinstance(t, Tensor)]
    return float(max((t.numel() for t in tensors if t.is_floating_point()), default=0))


def count(run: Callable[[], Any]) -> OpCounter:
    """Count the FLOPs of a call. Raises `UncountedOp` if something in it cannot be priced."""
    with OpCounter() as counter:
        run()
    return counter
