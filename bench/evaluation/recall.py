"""Split the loss into tokens that the context has shown before, and the rest.

A token is recalled if it ends an n-gram that stood earlier in its window. With n = 2, such tokens
make most of the gap between architectures (arXiv:2312.04927, section 3).
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from bench.data import Windows
from bench.record import Recall

BYTES = 4
"""Least mean length of the repeated n-gram, in bytes. A pair of bytes repeats by chance."""


def recall(
    nats: Float[np.ndarray, "window seq"],
    windows: Windows,
    token_bytes: Int[np.ndarray, " vocab"],
) -> Recall:
    """Return the loss on recalled tokens and on the rest.

    Args:
        nats: loss of each predicted token.
        windows: the evaluated windows.
        token_bytes: number of bytes of each token id.
    """
    sizes = token_bytes[windows.tokens]
    # At least a pair: the token, and something that it follows.
    order = max(2, round(BYTES / max(1.0, float(sizes.mean()))))
    seen = repeated(windows.tokens, order)[:, 1:]
    return Recall(
        order=order,
        share=float(seen.mean()),
        recalled=float(nats[seen].mean()) if seen.any() else None,
        rest=float(nats[~seen].mean()) if not seen.all() else None,
    )


def repeated(tokens: Int[np.ndarray, "window seq"], order: int) -> Bool[np.ndarray, "window seq"]:
    """Return where a token ends an n-gram of `order` tokens that ended earlier in the window."""
    found = np.zeros(tokens.shape, np.bool_)
    for window, row in enumerate(tokens.tolist()):
        before = set[tuple[int, ...]]()
        for end in range(order - 1, len(row)):
            gram = tuple(row[end - order + 1 : end + 1])
            found[window, end] = gram in before
            before.add(gram)
    return found
