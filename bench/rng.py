"""Draw randomness by name: every draw is a pure function of (seed, purpose).

A parameter's draw depends on the seed and its own name alone, and follows the order of its rows. So
a narrower layer, or one split into experts, starts from slices of the full layer's weights. All
routers of a seed share every weight that they can share. This makes the noise of their differences
small.
"""

import hashlib

import numpy as np
import torch
from torch import Tensor

_MASK = 0xFFFFFFFF


def key(seed: int, *names: object) -> int:
    """Return a 64-bit key for (seed, names), the same on every machine."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def normal(seed: int, name: str, rows: int, columns: int) -> Tensor:
    """Draw standard normal numbers `[rows, columns]`, float32.

    The first rows do not depend on the number of rows.
    """
    # NumPy's ziggurat draws one number after the other; torch's vectorised draw does not.
    stream = np.random.Generator(np.random.Philox(key(seed, name)))
    return torch.from_numpy(stream.standard_normal((rows, columns), dtype=np.float32))


def generator(seed: int, name: str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a new torch generator for (seed, name)."""
    # torch takes 63 bits.
    return torch.Generator(device=device).manual_seed(key(seed, name) >> 1)


def hash_uniform(seed: int, *parts: Tensor | int) -> Tensor:
    """Return uniform numbers in [0, 1), each a hash of the given integers.

    The parts are broadcast against each other. The same integers give the same number in any batch,
    at any sequence length and in decoding. A number has 24 bits, from the murmur3 finaliser.
    """
    state: Tensor | int = key(seed, "hash") & _MASK
    for part in parts:
        state = _mix((state ^ (part + 0x9E3779B9)) & _MASK)
    return (torch.as_tensor(state) >> 8).to(torch.float32) / (1 << 24)


def _mix(x: Tensor | int) -> Tensor | int:
    # The murmur3 finaliser on 32 bits, kept in 64-bit integers.
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & _MASK
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & _MASK
    return x ^ (x >> 16)
