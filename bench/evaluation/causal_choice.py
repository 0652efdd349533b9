"""Compare the causal choice of a router with its choice in training, on the trained weights.

Training chooses the top tokens of a sequence, which looks ahead. The model runs once with that
choice. At each site the causal choice is made on the same inputs, at the calibrated knob and at
knob 0, the own threshold of the router's mechanism (arXiv:2404.02258, section 3.5).
"""

from dataclasses import replace

import torch
from torch import Tensor

from bench.backbone.decoder import device_of
from bench.backbone.passes import ask
from bench.data import Windows
from bench.evaluation.evaluate import evaluate
from bench.model.assemble import Model
from bench.record import CausalChoice
from bench.rng import generator
from bench.routing.contract import Router, RouterInput, RoutingPlan


def causal_choice(
    model: Model, windows: Windows, batch_size: int, seed: int, dtype: torch.dtype
) -> CausalChoice | None:
    """Return the agreement of both choices, the loss of each, and the spend at knob 0.

    None unless every router has a base, a scalar knob, and one choice per token in training.

    Args:
        model: the trained model, with its knobs set.
        windows: windows to evaluate, a part of the validation split.
        batch_size: windows per pass.
        seed: seed of the routing noise.
        dtype: precision of matrix products.
    """
    routers, ledger = model.decoder.routers, model.evaluation_ledger
    if not routers or not all(map(_comparable, routers)):
        return None
    site = {router: index for index, router in enumerate(routers)}
    # For each site: tokens, and those with equal choices at the calibrated knob and at knob 0.
    equal = torch.zeros(len(routers), 3, dtype=torch.float64)
    counts: list[list[Tensor]] = [[] for _ in routers]

    def compare(router: Router, inputs: RouterInput) -> RoutingPlan:
        plan = ask(router, inputs)
        seen = torch.ones_like(plan.mask[..., 0]) if inputs.valid is None else inputs.valid
        calibrated, own = _causal(router, inputs)
        counts[site[router]].append((own & seen.unsqueeze(-1)).sum(1))
        same = [((mask == plan.mask).all(-1) & seen).sum() for mask in (calibrated, own)]
        equal[site[router]] += torch.stack([seen.sum(), *same]).cpu()
        return plan

    noise = generator(seed, "causal-choice", device_of(model.decoder))
    causal = evaluate(model, windows, batch_size, dtype)
    topk = evaluate(
        model, windows, batch_size, dtype, decide=compare, selection="topk", noise=noise
    )
    tokens = topk.nats.size
    spent = ledger.active([torch.cat(parts) for parts in counts], tokens)
    return CausalChoice(
        loss=float(causal.nats.mean()),
        topk_loss=float(topk.nats.mean()),
        accuracy=tuple((equal[:, 1] / equal[:, 0]).tolist()),
        own_accuracy=tuple((equal[:, 2] / equal[:, 0]).tolist()),
        own_spend=spent / tokens / model.solution.target,
    )


def _comparable(router: Router) -> bool:
    """Return whether training makes one choice per token, and evaluation has a knob."""
    scalar = router.knob is not None and router.knob.dim() == 0
    return scalar and router.paths.base is not None and not router.trains_dense


def _causal(router: Router, inputs: RouterInput) -> list[Tensor]:
    """Return the masks of the causal choice at the calibrated knob and at knob 0."""
    assert router.knob is not None
    calibrated = router.knob.clone()
    causal = replace(inputs, selection="causal", generator=None, received=None, progress=1.0)
    try:
        masks = [ask(router, causal).mask]
        router.knob.zero_()
        return [*masks, ask(router, causal).mask]
    finally:
        router.knob.copy_(calibrated)
