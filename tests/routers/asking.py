"""Ask a shipped router for a plan, outside of any decoder."""

from typing import Any

import torch
from torch import Tensor

from bench.rng import generator
from bench.routing.contract import Router, RouterInput, RoutingPlan, Selection
from tests.world import CONFIG, model, tokens

BATCH, SEQ = 3, 24


def built(name: str, options: dict[str, Any] | None = None) -> Router:
    """The router of the first routed layer."""
    return model(name, options).decoder.routers[0]


def inputs(
    selection: Selection = "topk", ids: Tensor | None = None, seed: int = 0, progress: float = 0.5
) -> RouterInput:
    ids = tokens(BATCH, SEQ) if ids is None else ids
    hidden = torch.randn(*ids.shape, CONFIG.d_model, generator=generator(seed, "hidden"))
    positions = torch.arange(ids.shape[1]).expand(ids.shape)
    return RouterInput(
        hidden, ids, positions, None, None, generator(seed, "routing"), progress, selection
    )


@torch.no_grad()
def plan(router: Router, seen: RouterInput) -> RoutingPlan:
    return router(seen)
