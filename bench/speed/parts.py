"""Divide the time of a training step among its parts.

Functions of the harness are replaced by timed ones while a step runs. They nest: the time of an
inner part is no time of the outer one. In the backward pass each node of the graph belongs to the
part that made it. Everything else is `other`, so the shares add up to 1.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from bench.backbone import decoder as decoder_module
from bench.backbone.decoder import Decoder
from bench.backbone.layers import Attention
from bench.backbone.memory import PairMemory
from bench.backbone.passes import Pass
from bench.backbone.paths import ExpertBank, LowRank
from bench.flops.ledger import Ledger
from bench.training import step as step_module
from bench.training.auxiliary import AuxiliaryLosses
from bench.training.choices import Choices
from bench.training.curriculum import Curriculum
from bench.training.step import Stepper

HEAD, OTHER = "head", "other"
PARTS: dict[str, tuple[tuple[Any, str], ...]] = {
    # A module is timed around its call, so a compiled one is timed too.
    "router": (
        *((Pass, "plan"), (Stepper, "_labelled")),
        *((AuxiliaryLosses, "total"), (Stepper, "_after_step")),
    ),
    "dispatch": (
        *((decoder_module, "dispatch_paths"), (decoder_module, "gather_chosen")),
        *((decoder_module, "scatter_chosen"), (Pass, "take")),
    ),
    "paths": (
        *((ExpertBank, "__call__"), (ExpertBank, "grouped")),
        *((LowRank, "__call__"), (PairMemory, "__call__")),
    ),
    "attention": ((Attention, "__call__"), (Attention, "with_weights")),
    "loss": ((step_module, "token_losses"),),
    "optimiser": ((Stepper, "_update"),),
    "data": ((Curriculum, "batch"),),
    "logging": (
        *((Choices, "note"), (step_module, "gradient_norms")),
        *((Ledger, "charge_step"), (Ledger, "charge")),
    ),
}
"""Part -> the functions that belong to it, as (owner, name). The head is a part of its own."""


class Stopwatch:
    """Book the passing time on one part at a time."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.part = OTHER
        # Number of a node of the graph -> the part that made it.
        self.made: dict[int, str] = {}
        self.last = self._now()

    def switch(self, part: str) -> str:
        """Book the time so far, go on with another part, and return the one before."""
        now, before = self._now(), self.part
        self.seconds[before] += now - self.last
        self.part, self.last = part, now
        return before

    def wrapped(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        """Return the function, with its time and the nodes it makes booked on a part."""

        def timed(*arguments: Any, **named: Any) -> Any:
            first, outer = _next_node(), self.switch(part)
            try:
                return function(*arguments, **named)
            finally:
                self.switch(outer)
                # Inner parts end first, so they keep their nodes.
                for number in range(first, _next_node()):
                    self.made.setdefault(number, part)

        return timed

    def backward(self, backward: Callable[..., None]) -> Callable[..., None]:
        """Return `Tensor.backward` with the time of each node booked on the part that made it."""

        def timed(loss: Tensor, *arguments: Any, **named: Any) -> None:
            outer = self.switch(OTHER)
            for node in _nodes(loss):
                part = self.made.get(_number(node), OTHER)
                node.register_prehook(lambda _, part=part: _drop(self.switch(part)))
            # Nobody pays for the hooks.
            self.last = self._now()
            backward(loss, *arguments, **named)
            self.switch(outer)

        return timed

    def _now(self) -> float:
        if self.device.type == "cuda":
            # Kernels run later than their calls, so wait for those of the part that ends.
            torch.cuda.synchronize(self.device)
            return time.perf_counter()
        return time.process_time()


def shares(step: Callable[[], object], decoder: Decoder, repeats: int) -> dict[str, float]:
    """Return part -> share of the time of some training steps; the shares add up to 1."""
    names = (*PARTS, HEAD, OTHER)
    watch = Stopwatch(decoder_module.device_of(decoder))
    with ExitStack() as stack:
        for part, functions in PARTS.items():
            for owner, name in functions:
                timed = watch.wrapped(getattr(owner, name), part)
                stack.enter_context(_replaced(owner, name, timed))
        # Routers hold linear layers too, so only this one is replaced.
        head = watch.wrapped(decoder.head.forward, HEAD)
        stack.enter_context(_replaced(decoder.head, "forward", head))
        stack.enter_context(_replaced(Tensor, "backward", watch.backward(Tensor.backward)))
        # The time of the replacements is no part of a step.
        watch.switch(OTHER)
        watch.seconds.clear()
        for _ in range(repeats):
            step()
            watch.switch(OTHER)
    # Every moment was booked on some part, so the sum is the whole time.
    total = sum(watch.seconds.values())
    return {name: watch.seconds[name] / total for name in names}


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Generator[None]:
    """Replace an attribute inside the block."""
    own = name in vars(owner)
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        # An inherited attribute must not become one of the owner itself.
        setattr(owner, name, before) if own else delattr(owner, name)


def _nodes(loss: Tensor) -> Iterator[Node]:
    """Yield the nodes of a graph, but for those that add up the gradients of parameters."""
    waiting, seen = [loss.grad_fn], set[Node]()
    while waiting:
        node = waiting.pop()
        # The sum of a parameter's gradient follows the node that made it, and is booked with it.
        if node is None or node in seen or node.name().endswith("AccumulateGrad"):
            continue
        seen.add(node)
        waiting += [following for following, _ in node.next_functions]
        yield node


def _next_node() -> int:
    """Return the number that the next node of a graph gets; torch numbers them in order."""
    return torch.autograd._get_sequence_nr()  # pyright: ignore


def _number(node: Node) -> int:
    return node._sequence_nr()  # pyright: ignore


def _drop(_: object) -> None:
    """Drop a result, because a hook must return None."""
