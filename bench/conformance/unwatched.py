"""What a router from outside does on the model and text of its own run when nobody counts.

`bench check` sees a small model only.
"""

from contextlib import suppress

import torch

from bench.backbone.decoder import device_of
from bench.backbone.passes import ask, make_pass
from bench.conformance.guard import SideEffect, sealed
from bench.data import Windows
from bench.evaluation.evaluate import window_tensors
from bench.flops.unseen import unseen_operations
from bench.model.assemble import Model
from bench.routing.contract import Router, RouterInput, RoutingPlan

WINDOWS = 4


@torch.no_grad()
def side_work(model: Model, windows: Windows) -> str:
    """Ask each router of a trained model with and without a counter, side effects refused.

    Returns:
        What is wrong, empty if nothing is.
    """
    tokens, tags = (part[:WINDOWS] for part in window_tensors(windows, device_of(model.decoder)))
    found: list[str] = []

    def decide(router: Router, inputs: RouterInput) -> RoutingPlan:
        differ: list[str] = []
        with sealed() as refused, suppress(SideEffect):
            differ = unseen_operations(lambda: ask(router, inputs))
        where = f"Router of layer {router.spec.layer}"
        if refused:
            found.append(f"{where}: {refused[0]} in its run; a router does arithmetic only.")
        if differ:
            found.append(
                f"{where}: without a counter it runs {', '.join(differ[:3])} otherwise than with one."
            )
        return ask(router, inputs)

    model.decoder(make_pass(tokens[:, :-1], tags, decide=decide))
    return found[0] if found else ""
