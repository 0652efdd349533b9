"""Count FLOPs without blind spots: an operation has a price, is known to be free, or is an error.

`torch.utils.flop_counter` prices some operations and silently counts all others as nothing:
matrix-vector products, grouped products, `(x * w).sum()`, LSTMs, custom operations. Here matrix
products cost 2mnk, elementwise work and reductions cost one FLOP per element, and moving data is
free. Every other operation is refused. Taking a tensor's data out of torch is refused too, because
nothing could be counted there.
"""

import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from bench.flops.prices import FREE, MATRIX, PER_ELEMENT, elements, operation_name

SCALARS = 256
"""Numbers that may be taken out of tensors one by one under one counter.

Enough to control the flow of a program, too few to compute with outside of torch.
"""


class UncountedOp(Exception):
    """An operation of unknown cost ran under the counter."""


class OpCounter(TorchDispatchMode):
    """Count the operations inside the `with` block on this thread.

    Counters may be nested; the outer one counts everything.

    Attributes:
        matrix: FLOPs of products, 2mnk each.
        elementwise: FLOPs of all other priced operations, one per element.
        calls: operation name -> number of calls.
    """

    def __init__(self) -> None:
        super().__init__()
        self.matrix = 0.0
        self.elementwise = 0.0
        self.calls: Counter[str] = Counter()

    @property
    def total(self) -> float:
        """Matrix and elementwise FLOPs together, the charge of a router."""
        return self.matrix + self.elementwise

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run the operation and charge it."""
        kwargs = kwargs or {}
        # Some formulas need the result, so the operation runs before it is priced.
        out = func(*args, **kwargs)
        if not isinstance(func, OpOverload):
            raise UncountedOp(f"Operation {func} has no known cost.")
        name = operation_name(func)
        self.calls[name] += 1
        if self.calls["_local_scalar_dense"] > SCALARS:
            raise UncountedOp(
                f"More than {SCALARS} numbers were taken out of torch one by one {_place()}: stay "
                "with tensors."
            )
        # An operation in place costs the same; overloads of `scatter` may reduce.
        base, reduces = name.removesuffix("_"), "reduce" in func.name().partition(".")[2]
        if base in MATRIX:
            self.matrix += MATRIX[base](*args, out_val=out, **kwargs)
        # Views move no data, and messages between ranks are no work. Neither are symbolic sizes and
        # `prim` operations.
        elif (
            (base in FREE and not reduces)
            or func.is_view
            or name.startswith("sym_")
            or func.namespace in ("prim", "c10d")
        ):
            pass
        elif base in PER_ELEMENT or reduces or torch.Tag.pointwise in func.tags:
            self.elementwise += elements(base, _tensors((args, kwargs)), _tensors(out))
        else:
            shapes = [tuple(tensor.shape) for tensor in _tensors(args)]
            raise UncountedOp(
                f"Operation {func.name()} on shapes {shapes} {_place()} has no known cost: use "
                "operations that the counter can price."
            )
        return out


class Sealed(TorchFunctionMode):
    """Refuse to hand a tensor's data to code outside of torch."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in WAYS_OUT:
            raise UncountedOp(
                f"Tensor.{name} {_place()} takes data out of torch, where nothing is counted: stay "
                "with tensors."
            )
        return func(*args, **(kwargs or {}))


WAYS_OUT = frozenset({"numpy", "__array__", "tolist"})
"""Methods of a tensor that hand its data to code outside of torch, where nothing is counted."""


def count(run: Callable[[], Any]) -> OpCounter:
    """Count the FLOPs of a call. Raises `UncountedOp` if an operation has no price."""
    with OpCounter() as counter, Sealed():
        run()
    return counter


def _tensors(data: Any) -> Iterator[Tensor]:
    """Yield every tensor in nested tuples, lists and dictionaries."""
    if isinstance(data, Tensor):
        yield data
    elif isinstance(data, (tuple, list, dict)):
        for part in data.values() if isinstance(data, dict) else data:
            yield from _tensors(part)


def _place() -> str:
    """Return the function and line that ran the operation, outside of torch and the counter."""
    frame = inspect.currentframe()
    # Walk outwards past torch, the type checkers and the counter itself.
    while frame is not None:
        code, module = frame.f_code, str(frame.f_globals.get("__name__"))
        between = module.split(".")[0] in _BETWEEN or module == __name__
        between |= code.co_name == "__torch_dispatch__"  # of a counter that builds on this one
        if not between and not code.co_filename.startswith("<"):
            return f"in {code.co_qualname} ({Path(code.co_filename).name}:{frame.f_lineno})"
        frame = frame.f_back
    return "outside of any function"


_BETWEEN = frozenset({"torch", "beartype", "jaxtyping"})
"""Packages whose frames lie between a caller and the counter."""
