"""Does code do the same when nobody counts? The counter is held against a profiler, which asks
nothing and cannot be asked for.

A router that looks whether a counter is about could run one thing for the audit and another in the
run. A profiler sees the operations of both; under a counter it sees each twice, as it is caught and
as it is passed on, and what it is made of once.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

from torch._ops import OpOverload

# the new one writes to stderr
from torch.autograd.profiler_legacy import profile  # pyright: ignore[reportDeprecated]
from torch.utils._python_dispatch import TorchDispatchMode

from bench.flops.operations import MATRIX, operation_name

_COUNTER_EVENT = "PythonDispatchMode"
"""What a profiler calls a counter itself."""

Seen = defaultdict[str, Counter[str]]
"""Operation -> shapes of its inputs -> calls."""


class _Calls(TorchDispatchMode):
    """Names of the operations that run, for code that has no price, such as that of an optimiser."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if isinstance(func, OpOverload):
            self.calls[operation_name(func)] += 1
        return func(*args, **(kwargs or {}))


def unseen_operations(run: Callable[[], object], products_only: bool = False) -> list[str]:
    """Names of operations that a call runs otherwise without a counter than with one: more or less
    often, or on other shapes.

    Args:
        run: what to watch, three times; it must do the same each time.
        products_only: leave elementwise work aside, for backward passes: autograd adds in place
            only where nobody watches.
    """
    with _Calls() as counter:
        run()
    alone = _profile(run)
    with _Calls():
        counted = _profile(run)
    names = MATRIX.keys() if products_only else alone.keys() | counted.keys()
    differ = {
        name for name in names if alone[name].total() != counted[name].total() - counter.calls[name]
    }
    if not products_only:  # what is seen once only ran below a counter that had been switched off
        differ |= {name for name in MATRIX if alone[name].total() != counter.calls[name]}
    return sorted(differ or {name for name in names if alone[name].keys() != counted[name].keys()})


def _profile(run: Callable[[], object]) -> Seen:
    with profile(record_shapes=True) as watch:  # pyright: ignore[reportDeprecated]
        run()
    seen: Seen = defaultdict(Counter)
    events: Any = watch.function_events  # pyright: ignore[reportOptionalMemberAccess]
    for event in events:
        if event.name != _COUNTER_EVENT:
            seen[event.name.removeprefix("aten::")][str(event.input_shapes)] += 1
    return seen
