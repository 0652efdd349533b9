"""Check that the labels of an oracle are paid for."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bench.backbone.passes import Pass
from bench.conformance.check import Exempt, demand, rule
from bench.conformance.subject import SEQ_LEN, Subject
from bench.flops.ledger import Ledger
from bench.model.assemble import Model

STEPS = 4


@rule(
    "Leave plans alone once they are made, in passes without gradient too: what is charged for a fork is noted before its paths run."
)
def labels_are_charged(subject: Subject) -> None:
    """Training pays for oracle labels what the passes that found them executed, layer by layer."""
    if "utility" not in subject.probe.needs:
        raise Exempt("the router asks for no utility")
    model = subject.assemble()
    executed: list[float] = []
    handles = _book(model, executed)
    subject.train(model, steps=STEPS)
    for handle in handles:
        handle.remove()
    charged, found = model.ledger.spent["oracle/forward"], sum(executed)
    demand(
        found > 0 and abs(charged - found) <= 1e-6 * found + 1,
        f"{found:,.0f} FLOPs charged for labels",
        f"{charged:,.0f}",
    )


def _book(model: Model, executed: list[float]) -> list[Any]:
    """Hooks that note the price of each layer, head and router the moment it has run in a pass
    without gradient.
    """
    decoder, ledger = model.decoder, model.ledger
    fixed = [
        Ledger(decoder, SEQ_LEN, {}, first=layer).fixed for layer in range(len(decoder.layers) + 1)
    ]

    def layer_ran(
        index: int, _layer: nn.Module, arguments: tuple[Tensor, Pass], _output: Tensor
    ) -> None:
        if torch.is_grad_enabled():
            return
        x, run = arguments
        executed.append((fixed[index] - fixed[index + 1]) * x.shape[:2].numel())
        here = [
            (site, trace)
            for site in ledger.sites
            for trace in run.traces
            if site.layer == trace.layer == index
        ]
        executed.extend(site.active(trace.plan.mask.sum(1)) for site, trace in here)

    def ran(cost: float, _module: nn.Module, _arguments: tuple[Any, ...], output: Any) -> None:
        if not torch.is_grad_enabled():
            shape = output.shape if isinstance(output, Tensor) else output.mask.shape
            executed.append(cost * shape[:2].numel())

    handles = [
        layer.register_forward_hook(partial(layer_ran, index))
        for index, layer in enumerate(decoder.layers)
    ]
    handles.append(decoder.head.register_forward_hook(partial(ran, fixed[-1])))
    routers = zip(decoder.routers, ledger.sites, strict=True)
    return handles + [
        router.register_forward_hook(partial(ran, site.router)) for router, site in routers
    ]
