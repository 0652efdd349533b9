"""Evaluation changes nothing but knobs.

Whoever learns while held-out text is read has learnt from it.
"""

from collections.abc import Generator
from contextlib import contextmanager

from bench.backbone.decoder import Decoder
from bench.errors import RuleBroken


def state_sums(decoder: Decoder) -> dict[str, tuple[float, float]]:
    """Two sums of every parameter and buffer, those included that no checkpoint saves.

    Enough to see one move. Knobs are left out.
    """
    named = (*decoder.named_parameters(), *decoder.named_buffers())
    return {
        name: (float(t.detach().double().sum()), float(t.detach().double().square().sum()))
        for name, t in named
        if not name.endswith("knob")
    }


@contextmanager
def unchanged(decoder: Decoder, what: str) -> Generator[None]:
    """Raise `RuleBroken` if a parameter or buffer is not what it was before, naming `what` was done
    and the first of them.
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
