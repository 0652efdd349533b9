"""Calibrate: set the knobs so that causal evaluation spends the budget."""

import torch
from jaxtyping import Float
from torch import Tensor

from bench.backbone.decoder import device_of
from bench.backbone.passes import Decide, ask, autocast, make_pass
from bench.data import Windows
from bench.evaluation.evaluate import window_tensors
from bench.flops.ledger import SiteCost
from bench.model.assemble import Model
from bench.routing.contract import Router, RouterInput, RoutingPlan

BISECTIONS = 40
SPEND_TOLERANCE = 2e-4
"""Relative difference of a site's spend at which calibration stops.

It is far inside the tolerance on B.
"""


@torch.no_grad()
def calibrate(
    model: Model,
    windows: Windows,
    spend: float,
    dtype: torch.dtype = torch.float32,
    decide: Decide = ask,
) -> float:
    """Set every knob so that causal evaluation of `windows` spends `spend` times B.

    Layers are calibrated in one forward pass, in order. When the pass reaches a router, its knob is
    bisected on the inputs there, and the pass goes on with the resulting plan. Each site gets the
    same multiple of its cost at its own solved shares, so layers and paths keep the ratios of
    training. The windows are stratified by domain, as in validation.

    Args:
        model: the model; its knobs are set.
        windows: windows of the calibration split.
        spend: target, as a multiple of B.
        dtype: precision of matrix products.
        decide: asks a router for the plan that the pass goes on with, for a meter.

    Returns:
        The actual spend, as a multiple of B.
    """
    ledger, device = model.evaluation_ledger, device_of(model.decoder)
    tokens, tags = window_tensors(windows, device)
    aims = zip(ledger.sites, _site_targets(model, spend), strict=True)
    aim_of = dict(zip(model.decoder.routers, aims, strict=True))

    def set_knob(router: Router, inputs: RouterInput) -> RoutingPlan:
        # Later sites see the plan at this knob, so they are calibrated on its effects.
        if router.knob is not None:
            _bisect(router, inputs, *aim_of[router], tokens[:, :-1].numel())
        return decide(router, inputs)

    run = make_pass(tokens[:, :-1], tags, decide=set_knob)
    with autocast(device, dtype):
        model.decoder(run)
    spent = ledger.active(run.counts, run.tokens.numel())
    ledger.charge("calibration", "forward", spent)
    return spent / run.tokens.numel() / model.solution.target


def _site_targets(model: Model, spend: float) -> list[Float[Tensor, " path"]]:
    """Return the FLOPs per token that each path of each site costs at a multiple of B."""
    ledger = model.evaluation_ledger
    shares = [torch.tensor([share], dtype=torch.float64) for share in model.solution.shares]
    nominal = [
        site.by_path(share * ledger.seq_len) / ledger.seq_len
        for site, share in zip(ledger.sites, shares, strict=True)
    ]
    total = sum(float(cost.sum()) for cost in nominal) + ledger.inside(shares)
    # Attention and routers cost the same at any knob, so the paths alone take up the difference.
    left = spend * model.solution.target - ledger.fixed - ledger.routers
    factor = left / total if total else 1.0
    return [cost * factor for cost in nominal]


def _bisect(
    router: Router,
    inputs: RouterInput,
    site: SiteCost,
    target: Float[Tensor, " path"],
    tokens: int,
) -> None:
    """Find the knob at which a site spends `target` FLOPs per token of `tokens` on these inputs.

    The target is met in sum, or path by path if the knob has a number per path.
    """
    knob = router.knob
    assert knob is not None
    wanted = target if knob.dim() else target.sum()

    def spend(value: Tensor) -> Tensor:
        knob.copy_(value)
        mask = ask(router, inputs).mask
        mask = mask if inputs.valid is None else mask & inputs.valid.unsqueeze(-1)
        found = site.by_path(mask.sum(1)) / tokens
        return found if knob.dim() else found.sum()

    # Widen the range until it holds the target; a score may have any scale.
    low, high = -torch.ones_like(wanted), torch.ones_like(wanted)
    while (wide := (spend(low) > wanted) & (low > -1e6)).any():
        low = torch.where(wide, low * 4, low)
    while (wide := (spend(high) < wanted) & (high < 1e6)).any():
        high = torch.where(wide, high * 4, high)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        found = spend(middle)
        if ((found - wanted).abs() <= SPEND_TOLERANCE * wanted).all():
            break
        less = found < wanted
        low, high = torch.where(less, middle, low), torch.where(less, high, middle)
