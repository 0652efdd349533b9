"""Check that evaluation changes nothing but knobs.

A router that changes while it reads held-out text has learnt from that text.
"""

from collections.abc import Generator
from contextlib import contextmanager

from bench.backbone.decoder import Decoder
from bench.errors import RuleBroken
from bench.training.parallel import full


def state_sums(decoder: Decoder) -> dict[str, tuple[float, float]]:
    """Return two sums of every parameter and buffer, also of buffers that no checkpoint saves.

    They are enough to detect a change. Knobs are left out.
    """
    named = (*decoder.named_parameters(), *decoder.named_buffers())
    return {
        name: (
            float(full(t.detach().double().sum())),
            float(full(t.detach().double().square().sum())),
        )
        for name, t in named
        if not name.endswith("knob")
    }


@contextmanager
def unchanged(decoder: Decoder, what: str) -> Generator[None]:
    """Raise `RuleBroken` if a parameter or buffer changes inside the `with` block.

    The error names the action (`what`) and the first changed names.
    """
    before = state_sums(decoder)
    yield
    after = state_sums(decoder)
    changed = sorted(
        name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
    )
    if changed:
        raise RuleBroken(
            f"{what} changed {', '.join(changed[:3])}; evaluation may change nothing but knobs."
        )
