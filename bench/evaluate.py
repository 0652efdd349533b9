"""Causal evaluation, and the calibration that makes it spend the budget."""

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from bench.backbone.decoder import device_of
from bench.backbone.passes import Decide, ask, autocast, make_pass
from bench.data import Windows
from bench.flops.ledger import SiteCost
from bench.model.assemble import Model
from bench.routing.contract import LayerTrace, Router, RouterInput, RoutingPlan

BISECTIONS = 40
SPEND_TOLERANCE = 2e-4
"""Calibration stops once a site's spend is this close, relatively: far inside the tolerance on B."""


@dataclass
class Evaluation:
    """What a causal evaluation saw.

    Attributes:
        nats: loss of each token, `[window, seq]`.
        active: active FLOPs a token.
        executed: FLOPs a token with full-square attention and padding.
        masks: a routed site -> its plans, `[window, seq, path]`; kept on request.
        scores: likewise, where the plan had scores.
        latents: likewise, where the plan had a prediction of what each path does, `extras["latent"]`.
    """

    nats: Float[np.ndarray, "window seq"]
    active: float
    executed: float
    masks: dict[int, Bool[Tensor, "window seq path"]] = field(default_factory=dict[int, Tensor])
    scores: dict[int, Float[Tensor, "window seq path"]] = field(default_factory=dict[int, Tensor])
    latents: dict[int, Float[Tensor, "window seq path latent"]] = field(default_factory=dict[int, Tensor])


def window_tensors(windows: Windows, device: torch.device) -> tuple[Tensor, Tensor]:
    """Tokens `[window, seq + 1]` and tags `[window, seq]` as tensors."""
    tokens = torch.from_numpy(windows.tokens).to(device)
    tags = torch.from_numpy(windows.tags).to(device)
    return tokens, tags.unsqueeze(1).expand(-1, tokens.shape[1] - 1)


@torch.no_grad()
def evaluate(
    model: Model, windows: Windows, batch_size: int, dtype: torch.dtype = torch.float32, keep: bool = False, decide: Decide = ask
) -> Evaluation:
    """Evaluate causally on fixed windows, and book what that cost.

    Args:
        model: the model, its knobs set.
        windows: what to evaluate on.
        batch_size: windows at a time; it changes nothing but speed.
        dtype: precision of matrix products.
        keep: keep plans and scores, for metrics.
        decide: the way to a plan, for inspection.
    """
    decoder, ledger, device = model.decoder, model.evaluation_ledger, device_of(model.decoder)
    tokens, tags = window_tensors(windows, device)
    nats: list[Tensor] = []
    active = executed = 0.0
    result = Evaluation(np.empty((0, 0)), 0.0, 0.0)
    kept: list[list[LayerTrace]] = []
    for start in range(0, len(tokens), batch_size):
        batch = tokens[start : start + batch_size]
        run = make_pass(batch[:, :-1], tags[start : start + batch_size], decide=decide)
        with autocast(device, dtype):
            logits = decoder(run)
        nats.append(F.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten(), reduction="none").view(batch[:, 1:].shape))
        active += ledger.active(run.counts, run.tokens.numel())
        executed += ledger.executed(run.counts, run.tokens.numel(), padded=True)
        if keep:
            kept.append(run.traces)
    total = tokens[:, :-1].numel()
    ledger.charge("evaluation", "forward", active)
    result.nats, result.active, result.executed = torch.cat(nats).double().cpu().numpy(), active / total, executed / total
    for site, traces in enumerate(zip(*kept, strict=True)):
        result.masks[site] = torch.cat([trace.plan.mask for trace in traces]).cpu()
        if all(trace.plan.scores is not None for trace in traces):
            result.scores[site] = torch.cat([trace.plan.scores for trace in traces if trace.plan.scores is not None]).float().cpu()
        if all("latent" in trace.plan.extras for trace in traces):
            result.latents[site] = torch.cat([trace.plan.extras["latent"] for trace in traces]).float().cpu()
    return result


@torch.no_grad()
def calibrate(model: Model, windows: Windows, spend: float, dtype: torch.dtype = torch.float32) -> float:
    """Set every knob so that causal evaluation of `windows` spends `spend` times B, and return what it does spend, in B.

    Layers are calibrated in one forward pass, in order: when the pass reaches a router, its knob is bisected on the
    inputs it sees there, and the pass goes on with the plan it then makes. Each site is given the same multiple of
    what it spends at the solved shares. The windows are stratified by domain, as validation is.

    Args:
        model: the model; its knobs are set.
        windows: of the calibration split.
        spend: what to aim for, as a multiple of B.
        dtype: precision of matrix products.
    """
    ledger, target, shares = model.evaluation_ledger, model.solution.target, torch.tensor([model.solution.shares], dtype=torch.float64)
    nominal = [site.by_path(shares * ledger.seq_len) / ledger.seq_len for site in ledger.sites]
    total = sum(float(cost.sum()) for cost in nominal)
    factor = (spend * target - ledger.fixed - ledger.routers) / total if total else 1.0
    sites = dict(zip(model.decoder.routers, zip(ledger.sites, nominal, strict=True), strict=True))

    def decide(router: Router, inputs: RouterInput) -> RoutingPlan:
        site, cost = sites[router]
        if router.knob is not None:
            _bisect(router, inputs, site, cost * factor)
        return ask(router, inputs)

    device = device_of(model.decoder)
    tokens, tags = window_tensors(windows, device)
    run = make_pass(tokens[:, :-1], tags, decide=decide)
    with autocast(device, dtype):
        model.decoder(run)
    spent = ledger.active(run.counts, run.tokens.numel())
    ledger.charge("calibration", "forward", spent)
    return spent / run.tokens.numel() / target


def _bisect(router: Router, inputs: RouterInput, site: SiteCost, target: Float[Tensor, " path"]) -> None:
    """Find the knob at which a site spends `target` FLOPs a token on these inputs: in sum, or path by path if the knob has one a path."""
    knob = router.knob
    assert knob is not None
    wanted = target if knob.dim() else target.sum()

    def spend(value: Tensor) -> Tensor:
        knob.copy_(value)
        found = site.by_path(ask(router, inputs).mask.sum(1)) / inputs.tokens.numel()
        return found if knob.dim() else found.sum()

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
