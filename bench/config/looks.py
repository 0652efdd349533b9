"""Check looks: the numbers of seeds, declared before the run, at which a board may be judged."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

LARGEST_LOOK, MOST_LOOKS = 256, 32
"""Beyond these, alpha spending between neighbouring looks is lost in rounding."""
ALLOWED = (
    f"at most {MOST_LOOKS} increasing numbers of seeds from 2 to {LARGEST_LOOK}, such as [3, 6], "
    "or none for a single look"
)


def possible(looks: Sequence[int]) -> bool:
    """Return whether a board can be judged at all of these looks."""
    # Alpha spending goes by the share of seeds seen, which must grow from look to look.
    increasing = all(earlier < later for earlier, later in pairwise(looks))
    return (
        len(looks) <= MOST_LOOKS and increasing and all(2 <= look <= LARGEST_LOOK for look in looks)
    )


def without_impossible(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a suite's configuration with impossible looks removed.

    New suites with such looks are refused. Records may be older than that rule.
    """
    declared = dict(config.get("comparison") or {})
    return (
        dict(config)
        if possible(declared.get("looks") or ())
        else {**config, "comparison": {**declared, "looks": []}}
    )
