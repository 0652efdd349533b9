"""Audit of the ledger: a real training step and a real evaluation, counted operation by operation,
next to the charges.

The ledger prices products by formula. Here the same pass runs under the counter, attention on its
plain kernel so that its products show, and each product is attributed to the component whose code
made it; in the backward pass, to the component whose code made the node.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor, nn
from torch._C import _current_autograd_node  # pyright: ignore[reportPrivateUsage]
from torch.autograd import _get_sequence_nr  # pyright: ignore
from torch.autograd.graph import Node
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.backbone.decoder import Layer
from bench.backbone.passes import ask, make_pass
from bench.backbone.sites import PathSet
from bench.flops.counter import OpCounter
from bench.flops.ledger import Ledger, first_gradient
from bench.model.assemble import Model
from bench.routing.contract import Router, RouterInput, RoutingPlan, Selection
from bench.training.utility import Oracle

Phase = Literal["forward", "backward"]
COMPONENTS = ("backbone", "paths", "router")


@dataclass(frozen=True)
class Line:
    """One component of one pass, in executed FLOPs.

    Backbone and paths are counted in products and must agree exactly, forward and backward. A
    router is counted with its elementwise work, which agrees exactly forward; backward it is
    charged twice its forward work, which is exact for its products, a bound for most elementwise
    work, and too much where nothing flows back.

    Attributes:
        component: "backbone", "paths" or "router"; "oracle", the products of forked passes, where
            routers ask for utility.
        phase: "forward" or "backward".
        ledger: FLOPs by the ledger.
        counted: FLOPs by the counter.
    """

    component: str
    phase: Phase
    ledger: float
    counted: float


class _Attributed(OpCounter):
    """Counts products by component and phase."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: defaultdict[tuple[str, Phase], float] = defaultdict(float)
        self._stack: list[str] = []
        self._starts: list[int] = []
        self._names: list[str] = []
        self._enter("backbone")

    @contextmanager
    def within(self, component: str) -> Generator[None]:
        """Attribute the work inside to a component."""
        self._enter(component)
        try:
            yield
        finally:
            self._leave()

    def watch(self, module: nn.Module) -> list[Any]:
        """Attribute a module to the paths; returns the hooks to remove."""
        return [
            module.register_forward_pre_hook(lambda _module, _inputs: self._enter("paths")),
            module.register_forward_hook(lambda _module, _inputs, _output: self._leave()),
        ]

    def _enter(self, component: str) -> None:
        self._stack.append(component)
        self._mark()

    def _leave(self) -> None:
        self._stack.pop()
        self._mark()

    def _mark(self) -> None:
        self._starts.append(_get_sequence_nr())  # of the next node of the graph
        self._names.append(self._stack[-1])

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        before = self.matrix, self.elementwise
        out = super().__torch_dispatch__(func, types, args, kwargs)
        node = cast("Node | None", _current_autograd_node())
        component, phase = (
            (self._stack[-1], "forward") if node is None else (self._component_of(node), "backward")
        )
        elementwise = self.elementwise - before[1] if component == "router" else 0.0
        self.parts[component, phase] += self.matrix - before[0] + elementwise
        return out

    def _component_of(self, node: Node) -> str:
        return self._names[bisect_right(self._starts, node._sequence_nr()) - 1]


def audit(
    model: Model,
    tokens: Int[Tensor, "batch seq_plus_1"],
    tags: Int[Tensor, "batch seq_plus_1"],
    progress: float = 1.0,
) -> dict[Selection, list[Line]]:
    """Count a training step and an evaluation of these sequences, and return the ledger's charges
    too.

    Args:
        model: the model; gradients are dropped, nothing else changes.
        tokens: sequences and, shifted by one, their targets.
        tags: domain of each token.
        progress: share of the training budget that is said to be spent.

    Raises:
        UncountedOp: an operation without a price was run; the text names it, its shapes and the
            module.
    """
    training = _count(
        model, "topk", tokens, tags, torch.Generator(tokens.device).manual_seed(0), progress
    )
    with torch.no_grad():
        training += _count_oracle(model, tokens, tags)
        evaluation = _count(model, "causal", tokens, tags, None, progress)
    return {"topk": training, "causal": evaluation}


def _count(
    model: Model,
    selection: Selection,
    tokens: Tensor,
    tags: Tensor,
    generator: torch.Generator | None,
    progress: float,
) -> list[Line]:
    counter = _Attributed()
    hooks = [hook for module in _paths(model) for hook in counter.watch(module)]

    def decide(router: Router, inputs: RouterInput) -> RoutingPlan:
        with counter.within("router"):
            return ask(router, inputs)

    run = make_pass(
        tokens[:, :-1],
        tags[:, :-1],
        selection=selection,
        generator=generator,
        progress=progress,
        decide=decide,
    )
    try:
        with sdpa_kernel(SDPBackend.MATH), counter:
            logits = model.decoder(run)
            if generator is not None:
                loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
                if loss.requires_grad:
                    loss.backward()
    finally:
        for hook in hooks:
            hook.remove()
        model.decoder.zero_grad(set_to_none=True)
    ledger = model.ledger if selection == "topk" else model.evaluation_ledger
    counts, size = run.counts, run.tokens.numel()
    forward = _expected(ledger, counts, size, padded=selection == "causal")
    expected: dict[Phase, dict[str, float]] = {"forward": forward}
    if generator is not None:
        expected["backward"] = {component: 2 * flops for component, flops in forward.items()}
        if model.frozen:
            expected["backward"] = _expected(
                ledger.backward(first_gradient(run.traces, len(model.decoder.layers))),
                counts,
                size,
                False,
            )
    return [
        Line(component, phase, parts[component], counter.parts[component, phase])
        for component in COMPONENTS
        for phase, parts in expected.items()
    ]


def _count_oracle(model: Model, tokens: Tensor, tags: Tensor) -> list[Line]:
    """The forks of a training step.

    Their routers are left out: they cost the same in any pass.
    """
    oracle = Oracle(model, 0, torch.float32)
    if not oracle.sites:
        return []
    counter = _Attributed()

    def decide(router: Router, inputs: RouterInput) -> RoutingPlan:
        with counter.within("router"):
            return ask(router, inputs)

    noise = torch.Generator(tokens.device).manual_seed(0)
    run = make_pass(
        tokens[:, :-1],
        tags[:, :-1],
        selection="topk",
        generator=noise,
        decide=decide,
        history=oracle.history(),
    )
    logits = model.decoder(run)
    loss = F.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")
    spent = dict(model.ledger.spent)
    with sdpa_kernel(SDPBackend.MATH), counter:
        costs = oracle.label(run, tokens[:, 1:], loss, step=0)
    model.ledger.spent.clear()
    model.ledger.spent.update(spent)
    executed = sum(cost.executed - cost.ledger.routers * cost.tokens for cost in costs)
    return [Line("oracle", "forward", executed, counter.parts["backbone", "forward"])]


def _paths(model: Model) -> Iterator[nn.Module]:
    """The modules that are paths.

    Whole layers where blocks are routed, else the paths of a routed site.
    """
    for layer in model.decoder.layers:
        assert isinstance(layer, Layer)
        if layer.block_router is not None:
            yield layer
        elif isinstance(layer.ffn, PathSet):
            yield from layer.ffn.children()


def _expected(ledger: Ledger, counts: list[Tensor], tokens: int, padded: bool) -> dict[str, float]:
    router = ledger.routers * tokens + ledger.inside(counts, padded)
    backbone = ledger.fixed_executed * tokens
    return {
        "backbone": backbone,
        "router": router,
        "paths": ledger.executed(counts, tokens, padded) - backbone - router,
    }
