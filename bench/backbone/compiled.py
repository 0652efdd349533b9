"""Compile attention and paths of a decoder, whose work is large and whose graph is fixed.

Routers stay eager, because they run under a counter. Dispatch stays eager, because its sizes depend
on plans. On a GPU a bank whose experts each take a part of the tokens stays eager too: its grouped
products are a method of their own.
"""

from bench.backbone.decoder import Decoder, Layer
from bench.backbone.sites import PathSet


def compile_parts(decoder: Decoder, backend: str = "inductor") -> None:
    """Compile the call of every attention and every path. Parameters keep their names.

    Args:
        decoder: the decoder on its final device, because moving it would compile it again.
        backend: backend of `torch.compile`.
    """
    for layer in decoder.layers:
        assert isinstance(layer, Layer)
        for part in (
            layer.attention,
            *(layer.ffn.children() if isinstance(layer.ffn, PathSet) else (layer.ffn,)),
        ):
            # Attention that shows its weights to routers is another method, and runs eagerly.
            part.compile(backend=backend)
