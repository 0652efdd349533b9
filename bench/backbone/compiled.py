"""Compiling the parts of a decoder whose work is large and whose graph is fixed: attention and
paths.

Routers, which are asked under a counter, and dispatch, whose sizes depend on plans, stay eager.
"""

from bench.backbone.decoder import Decoder, Layer
from bench.backbone.sites import PathSet


def compile_parts(decoder: Decoder, backend: str = "inductor") -> None:
    """Compile every attention and every path in place; parameters and their names stay as they are.

    Args:
        decoder: where it will run, since moving it afterwards compiles anew.
        backend: of `torch.compile`. Attention that routers ask about runs eagerly.
    """
    for layer in decoder.layers:
        assert isinstance(layer, Layer)
        for part in (
            layer.attention,
            *(layer.ffn.children() if isinstance(layer.ffn, PathSet) else (layer.ffn,)),
        ):
            part.compile(backend=backend)
