"""No routing on a frozen backbone: whole layers take the full path, the others the cheap one."""

from typing import Literal

from bench.routing import (
    FFN_GATE,
    Router,
    RouterInput,
    RouterSpec,
    RoutingPlan,
    gate_plan,
    hash_noise,
    register,
)


@register("fixed_layers", family="control")
class FixedLayers(Router):
    """No choice among tokens: some layers are full, some cheap, as the budget has it.

    Where the budget ends within a layer, a hash of (seed, layer, position, token) upgrades the
    tokens of that layer that can be paid for. What `dense_matched` is to models trained from
    scratch, this is to a frozen one.

    Args:
        full: which of the routed layers are full, the "first" or the "last" of them.
    """

    paths = FFN_GATE

    def __init__(self, full: Literal["first", "last"] = "first") -> None:
        super().__init__()
        if full not in ("first", "last"):
            raise ValueError(f"full is {full!r}; allowed are 'first', 'last'.")
        self.full = full

    def build(self, spec: RouterSpec) -> None:
        """Find this layer's share of the full paths that the budget pays for."""
        super().build(spec)
        place = spec.routed_layers.index(spec.layer)
        before = place if self.full == "first" else len(spec.routed_layers) - 1 - place
        self.share = min(1.0, max(0.0, spec.capacity * len(spec.routed_layers) - before))

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        """Upgrade this layer's share of the tokens: all, none, or those that the hash picks."""
        return gate_plan(hash_noise(self.spec, inputs) < self.share, None)
