"""Frozen backbones for tests: weights that are not zero, without any pretraining."""

from collections.abc import Mapping
from typing import Any

from bench.model.assemble import Model
from bench.routing.registry import find
from bench.training.pretrain import Pretrained, adopt
from tests.small import ROWS, model, trained_like

PATHS = {"cheap", "full", "skip", "block"}
FROZEN_ROWS = [
    (name, options) for name, options in ROWS if set(find(name).make(options).paths.names) <= PATHS
]
"""Every registered router that can stand on a frozen backbone."""


def backbone(seed: int = 0) -> Pretrained:
    """Weights as a pretraining leaves them."""
    dense = trained_like(model("dense", seed=seed).decoder)
    return Pretrained(
        {name.replace(".ffn.full.", ".ffn."): p.detach() for name, p in dense.named_parameters()},
        1.0,
    )


def frozen(name: str, options: Mapping[str, Any] | None = None) -> Model:
    """A model whose routers alone are trained."""
    found = model(name, options)
    adopt(found, backbone())
    return found
