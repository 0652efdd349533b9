"""Define the control of a frozen backbone: whole layers are full, the others cheap."""

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
    """No choice among tokens: some layers are full, the others cheap, as the budget allows.

    If the budget ends within a layer, a hash of (seed, layer, position, token) upgrades the tokens
    of that layer that it pays for. This is the control of a frozen model, as `dense_matched` is of
    models trained from scratch.

    Args:
        full: full layers: the "first" or the "last" of the routed layers.
    """

    pointwise = True
    paths = FFN_GATE

    def __init__(self, full: Literal["first", "last"] = "first") -> None:
        super().__init__()
        if full not in ("first", "last"):
            raise ValueError(f"full is {full!r}; allowed are 'first', 'last'.")
        self.full = full

    def build(self, spec: RouterSpec) -> None:
        """Find this layer's share of the full paths that the budget pays for."""
        super().build(spec)
        # The budget fills whole layers in order; this layer gets the remainder, if any.
        place = spec.routed_layers.index(spec.layer)
        before = place if self.full == "first" else len(spec.routed_layers) - 1 - place
        self.share = min(1.0, max(0.0, spec.capacity * len(spec.routed_layers) - before))

    def forward(self, inputs: RouterInput) -> RoutingPlan:
        """Upgrade this layer's share of the tokens: all, none, or a share by the hash."""
        return gate_plan(hash_noise(self.spec, inputs) < self.share, None)
