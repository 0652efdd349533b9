"""Routers that report false numbers, or write to tensors of others."""

from dataclasses import replace

from bench.routing.contract import RouterInput, RoutingPlan
from bench.routing.paths import BLOCK_GATE
from bench.routing.registry import register
from routers.gates import MLPGate


@register("counts_of_its_own", family="cheater")
class CountsOfItsOwn(MLPGate):
    """Reports more upgraded tokens than its mask shows.

    The dispatcher runs the one, the ledger charges the other.
    """

    paths = BLOCK_GATE

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        plan = super().forward(inputs)
        seq = inputs.tokens.shape[1]
        return replace(plan, counts=(0, seq)) if inputs.selection == "topk" else plan


@register("rewrites_the_layer_before", family="cheater")
class RewritesTheLayerBefore(MLPGate):
    """Clears the mask of the layer before, which has been executed."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        if inputs.previous is not None:
            inputs.previous.plan.mask.data[..., 1] = False
        return super().forward(inputs)


@register("writes_to_inputs", family="cheater")
class WritesToInputs(MLPGate):
    """Adds to the hidden state that the paths are about to read."""

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        inputs.hidden.data.add_(0.1)
        return super().forward(inputs)
