"""Gradient norms of the routers and of what they choose among: read after the backward pass, changing nothing."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bench.backbone.decoder import Decoder, Layer
from bench.backbone.sites import is_block


@torch.no_grad()
def gradient_norms(decoder: Decoder) -> Float[Tensor, "site 2"]:
    """L2 norm of the gradient of each routed site's router, and of the paths it chooses among, in the order of the traces.

    A block's path is its attention and its FFN. What has no parameters, or is frozen, has norm 0. Nothing waits for the device.
    """
    norms: list[Tensor] = []
    for layer in decoder.layers:
        assert isinstance(layer, Layer)
        for router in (layer.ffn_router, layer.block_router):
            if router is not None:
                paths = (layer.attention, layer.ffn) if is_block(router) else (layer.ffn,)
                norms += [_norm(decoder, router), _norm(decoder, *paths)]
    return torch.stack(norms).view(-1, 2) if norms else torch.zeros(0, 2)


def _norm(decoder: Decoder, *modules: nn.Module) -> Tensor:
    gradients = [parameter.grad for module in modules for parameter in module.parameters() if parameter.grad is not None]
    return nn.utils.get_total_norm(gradients) if gradients else decoder.head.weight.new_zeros(())
